"""The daemon's own HTTP: metrics and health, for Prometheus, systemd's friends and people."""
