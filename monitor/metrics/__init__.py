"""What Prometheus sees: the one table of metric families, the page, and the process's own instruments."""
