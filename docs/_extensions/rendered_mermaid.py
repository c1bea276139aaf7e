"""Renders ```mermaid fences as SVG when the site is built, so that its readers need no script."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mermaidx
from docutils import nodes
from docutils.parsers.rst import Directive

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = "_images"


class Mermaid(Directive):
    """A picture. What a screen reader gets is the diagram's source."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source = "\n".join(self.content)
        node = mermaid_picture(source=source)
        node.line = self.lineno
        return [node]


class mermaid_picture(nodes.General, nodes.Element):  # noqa: N801 -- docutils finds visitors by this name
    pass


def visit_html(translator: Any, node: mermaid_picture) -> None:
    source: str = node["source"]
    name = f"mermaid-{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"
    folder = Path(translator.builder.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(with_size(mermaidx.render(source).svg()))
    uri = translator.builder.get_relative_uri(translator.docnames[0], "index").rpartition("/")[0]
    path = f"{uri}/{FOLDER}/{name}" if uri else f"{FOLDER}/{name}"
    text = translator.attval(source)
    translator.body.append(f'<p><a href="{path}"><img class="mermaid-picture" src="{path}" alt="{text}"></a></p>\n')
    raise nodes.SkipNode


def with_size(svg: str) -> str:
    """The picture in its own size; Mermaid lets it fill whatever it is in."""
    width, height = re.findall(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg)[0]
    return svg.replace('width="100%"', f'width="{width}" height="{height}"', 1)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("mermaid", Mermaid)
    app.add_node(mermaid_picture, html=(visit_html, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
