"""The HTTP face: health, readiness, status, metrics and the documentation pages."""
