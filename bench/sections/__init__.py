"""The page's sections. Each has a TITLE, and a `run` that measures and returns its text in Markdown."""
