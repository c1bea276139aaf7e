"""`python -m tools.reproduce`: build the image from two checkouts, and compare the layers.

The second checkout is in another folder, its files have other times and modes, and nothing comes from the build cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tools.container_engine import Engine, EngineUnavailable, ImageError, engine
from tools.image import ROOT, build, default_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NAMED = 20
"""Entries of a layer that are named when they differ."""
_INPUT = (
    *("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"),
    *("requirements.txt", "requirements-build.txt"),
)
_ODD_TIME = 1_000_000_000

Entries = dict[str, str]
"""The metadata of each entry of an archive: kind, mode, owner, time, target of a link, digest of the content."""


@contextmanager
def other_checkout() -> Iterator[Path]:
    """The files that the build reads, in another folder, with another time, readable by their owner only."""
    with tempfile.TemporaryDirectory(prefix="queueworker-checkout-") as name:
        folder = Path(name)
        for file in _INPUT:
            shutil.copyfile(ROOT / file, folder / file)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "operator", folder / "operator", ignore=ignored, copy_function=shutil.copyfile)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.utime(path, (_ODD_TIME, _ODD_TIME))
        yield folder


def layers(engine: Engine, tag: str) -> list[str]:
    """The digests of the image's layers, the base's first."""
    found: list[str] = json.loads(engine.run("image", "inspect", tag).stdout)[0]["RootFS"]["Layers"]
    return found


def top_layer(engine: Engine, tag: str) -> Entries:
    """The entries of the image's last layer."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.tar"
        engine.run("save", "--output", str(path), tag)
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            layer = archive.extractfile(json.load(manifest)[0]["Layers"][-1])
            with tarfile.open(fileobj=layer) as entries:
                return {entry.name: _described(entries, entry) for entry in entries}


def _described(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    content = archive.extractfile(entry) if entry.isfile() else None
    digest = hashlib.sha256(content.read()).hexdigest()[:16] if content is not None else "-"
    owner = f"{entry.uid}:{entry.gid}"
    return f"type={entry.type!r} mode={entry.mode:o} owner={owner} time={entry.mtime} link={entry.linkname} {digest}"


def differences(once: Entries, again: Entries) -> list[str]:
    """A line for each entry that differs, `MAX_NAMED` at most."""
    names = sorted(name for name in once | again if once.get(name) != again.get(name))
    lines = [f"{name}: {once.get(name, 'is not there')}, then {again.get(name, 'is not there')}" for name in names]
    more = [f"and {len(lines) - MAX_NAMED} more"] if len(lines) > MAX_NAMED else []
    return lines[:MAX_NAMED] + more


def main() -> None:
    """Print the digests. Ends the process with status 1 if the same input made other layers."""
    tag, other = default_tag(), f"{default_tag()}-again"
    with engine() as found, other_checkout() as checkout:
        build(found, tag)
        once = layers(found, tag)
        build(found, other, checkout=checkout, cache=False)
        try:
            again = layers(found, other)
            different = differences(top_layer(found, tag), top_layer(found, other)) if once != again else []
        finally:
            found.run("image", "rm", other)
    if once != again:
        raise ImageError("the same input made other layers:\n  " + "\n  ".join([*different, str(once), str(again)]))
    print("\n".join(again))


if __name__ == "__main__":
    try:
        main()
    except (EngineUnavailable, ImageError) as error:
        sys.exit(f"error: {error}")
