"""The sections of docs/performance.md. Each has a TITLE, and a `run` that measures and returns Markdown."""
