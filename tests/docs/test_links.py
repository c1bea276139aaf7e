"""The links between pages, on GitHub and in the site that `make docs` has built."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from tests.support.doc_blocks import ROOT, blocks, pages

SITE = ROOT / "dist" / "site"
needs_site = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="there is no site: `make docs` builds it")


class Page(HTMLParser):
    """What a page of the site refers to: its links, what a browser loads with it, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif (tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload"}) or "src" in given:
            self.loads.append(given.get("src") or given.get("href", ""))


def site(folder: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path.read_text()) for path in folder.rglob("*.html")}


def broken(folder: Path) -> list[str]:
    """Links and files of a site that lead nowhere. Links to other hosts are not followed."""
    found, bad = site(folder), []
    for path, page in found.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = found[target].anchors if target in found else set()
            if not target.exists() or (parts.fragment and target in found and unquote(parts.fragment) not in anchors):
                bad.append(f"{path.name}: {link}")
    return bad


def loaded_from_elsewhere(folder: Path) -> list[str]:
    """What a browser would ask another host for."""
    return [f"{path.name}: {url}" for path, page in site(folder).items() for url in page.loads if urlsplit(url).netloc]


def broken_on_github(page: Path) -> list[str]:
    """Relative links of a Markdown page to files that are not there."""
    tokens = [child for token in MarkdownIt().parse(page.read_text()) for child in token.children or ()]
    links = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens]
    paths = [unquote(urlsplit(link).path) for link in links if not urlsplit(link).scheme]
    return [path for path in paths if path and not (page.parent / path).exists()]


@needs_site
def test_every_link_of_the_site_leads_somewhere() -> None:
    assert broken(SITE) == []


@needs_site
def test_the_site_loads_nothing_from_another_host() -> None:
    assert loaded_from_elsewhere(SITE) == []


@needs_site
def test_every_diagram_of_docs_is_a_picture_in_the_site() -> None:
    diagrams = [block for page in pages() for block in blocks(page) if block.language == "mermaid"]
    pictures = [name for page in site(SITE).values() for name in page.loads if "/mermaid-" in name]
    assert len(pictures) == len(diagrams) > 0


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_markdown_page_leads_to_a_file(page: Path) -> None:
    assert broken_on_github(page) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html"></a><a href="a.html#no"></a><a href="#yes" id="yes"></a>')
    assert broken(tmp_path) == ["a.html: b.html", "a.html: a.html#no"]


def test_a_script_of_another_host_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<script src="https://cdn.test/x.js"></script><script src="x.js"></script>')
    assert loaded_from_elsewhere(tmp_path) == ["a.html: https://cdn.test/x.js"]


def test_a_link_to_a_file_that_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("[a](a.md) [b](b.md) [c](https://c.test/)")
    assert broken_on_github(tmp_path / "a.md") == ["b.md"]
