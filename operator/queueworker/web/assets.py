"""The page's files. Each is served under a name with a hash of its content, so browsers may keep it for ever.

There is no build step: references between the files are replaced by the hashed names when the process starts.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

STATIC = resources.files("queueworker.web") / "static"
PAGE = "index.html"
FOLDER = "assets"
"""The path below the page at which the files are served."""
ORDER = (
    "icon.svg", "style.css", "theme.js", "dom.js", "format.js", "plots.js", "poll.js", "list.js", "failures.js",
    "detail.js", "main.js",
)  # fmt: skip
"""Each file after those that it refers to."""
_TYPES = {"svg": "image/svg+xml", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_ATTRIBUTES = {"css": "href", "js": "src"}


@dataclass(frozen=True, slots=True)
class Asset:
    name: str
    """`file.<hash>.js`."""
    content: bytes
    media_type: str
    integrity: str
    """For the attribute of this name."""


@dataclass(frozen=True, slots=True)
class Assets:
    by_name: dict[str, Asset]
    page: bytes
    version: str
    """Changes with any of the files."""


def load(folder: Traversable = STATIC) -> Assets:
    """Read and name all files."""
    made: dict[str, Asset] = {}
    for file in ORDER:
        content = (folder / file).read_text("utf-8")
        for other, asset in made.items():
            content = content.replace(f'"./{other}"', f'"./{asset.name}"')
        made[file] = _asset(file, content.encode())
    page = (folder / PAGE).read_text("utf-8")
    version = hashlib.sha256("".join(a.name for a in made.values()).encode() + page.encode()).hexdigest()[:12]
    for file, asset in made.items():
        page = page.replace(f'modulepreload" {{{{{file}}}}}', f'modulepreload" {_reference(asset, "href")}')
        page = page.replace(f"{{{{{file}}}}}", _in_page(asset))
    page = page.replace("{{version}}", version)
    return Assets({asset.name: asset for asset in made.values()}, page.encode(), version)


def _asset(file: str, content: bytes) -> Asset:
    stem, _, kind = file.rpartition(".")
    integrity = base64.b64encode(hashlib.sha384(content).digest()).decode()
    name = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
    return Asset(name, content, _TYPES[kind], f"sha384-{integrity}")


def _in_page(asset: Asset) -> str:
    kind = asset.name.rpartition(".")[2]
    return _reference(asset, _ATTRIBUTES[kind]) if kind in _ATTRIBUTES else f"{FOLDER}/{asset.name}"


def _reference(asset: Asset, attribute: str) -> str:
    return f'{attribute}="{FOLDER}/{asset.name}" integrity="{asset.integrity}"'
