"""Being watched: metrics for Prometheus, health for monitors, a page for people, over one read-only HTTP listener."""
