"""Sphinx: the site of docs/, which `make docs` writes to dist/site. It needs no internet, neither to build nor to read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_extensions"))

project = "QueueWorker operator"
author = "the authors of the QueueWorker operator"
project_copyright = author
release = re.findall(r'__version__ = "(.+)"', (DOCS.parent / "operator/queueworker/__init__.py").read_text())[0]
version = release

extensions = ["myst_parser", "rendered_mermaid"]
exclude_patterns = ["_extensions", "_static"]
myst_enable_extensions = ["colon_fence"]
# References to sections, as GitHub makes them: file.md#a-section.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Commands, output and logs are not highlighted as something that they are not.
highlight_language = "none"
# Some groups of the table of contents name pages by a pattern, so that a new page is in it by itself.
suppress_warnings = ["toc.empty_glob"]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
