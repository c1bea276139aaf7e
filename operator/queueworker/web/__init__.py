"""The HTTP API: health, readiness, status, metrics and the documentation pages."""
