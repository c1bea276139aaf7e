"""The fenced blocks of the repository's Markdown, and what is said about running them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
COMMANDS = {"sh", "console"}
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S[^>]*\S) -->")
PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    reason: str
    """Why it is not run; empty if it is."""
    section: str
    """The heading above it; empty before the first one."""

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> str:
        """A script. In a `console` block the lines with a prompt are commands, and the others are output."""
        if self.language != "console":
            return self.text
        return "\n".join(line.removeprefix(PROMPT) for line in self.text.splitlines() if line.startswith(PROMPT))


def pages(root: Path = ROOT) -> list[Path]:
    folders = (root, root / "docs", root / "docs" / "runbooks", root / "tests", *(root / "charts").glob("*"))
    return [page for folder in folders for page in sorted(folder.glob("*.md"))]


def blocks(page: Path, root: Path = ROOT) -> list[Block]:
    found, reason, section, before = [], "", "", ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block" and (match := NOT_RUN.fullmatch(token.content.strip())):
            reason = match["reason"]
        elif token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            language = token.info.strip().split(" ")[0]
            found.append(Block(page.relative_to(root).as_posix(), line, language, token.content, reason, section))
            reason = ""
        elif token.nesting >= 0:
            reason = ""
            section = token.content if before == "heading_open" else section
        before = token.type
    return found
