"""Images on the node: nothing is pulled, everything is imported from an archive."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from typing import TYPE_CHECKING

from devcluster import binaries
from devcluster.node.layout import PAUSE_IMAGE

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.node.layout import Layout

IMPORT_SECONDS = 300


class ImportFailed(Exception):
    """containerd refuses an archive. The message ends with its own."""


def load(layout: Layout, archive: Path) -> None:
    """Import the images of a `docker save` or OCI archive. Raises `ImportFailed`."""
    command = ["ctr", "--address", str(layout.socket), "--namespace", "k8s.io", "images", "import", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS)
    if done.returncode != 0:
        raise ImportFailed(f"containerd cannot import {archive.name}: {done.stderr.strip()[-500:]}")


def write_pause(path: Path) -> None:
    """The image of every pod's first container, which holds its network: one static program."""
    program = binaries.find(binaries.PAUSE).read_bytes()
    layer = _tar({"pause": program}, mode=0o755)
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": _json(config), "manifest.json": _json(manifest)}
    path.write_bytes(_tar(files, mode=0o644))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()
