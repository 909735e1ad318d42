"""Watches the health of Wix external-calendar connections and tells Prometheus."""

__version__ = "0.1.0"
