"""The image of the demo's services, and the archive that takes both images to a node.

`python -m tools.platform_image` builds the operator's image and this one, and prints their names.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import binaries
from devcluster.progress import say
from queueworker import __version__
from tools.container_engine import EngineUnavailable, ImageError, engine
from tools.image import ROOT, build, default_tag

if TYPE_CHECKING:
    from tools.container_engine import Engine


def platform_tag() -> str:
    """The image with queue, executor, storage worker and redis-server."""
    return f"queueworker-platform:{__version__}"


def build_both(engine: Engine) -> tuple[str, str]:
    """Build the operator's image, and the platform's from it. Returns their names. Raises `ImageError`."""
    build(engine, default_tag())
    with tempfile.TemporaryDirectory() as name:
        context = Path(name)
        shutil.copytree(ROOT / "demo", context / "demo", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(binaries.redis_server(), context / "redis-server")
        shutil.copy(ROOT / "tools" / "platform.Dockerfile", context / "Dockerfile")
        arguments = ("--network", "none", "--build-arg", f"BASE={default_tag()}", "--tag", platform_tag())
        engine.run("build", *arguments, name)
    return default_tag(), platform_tag()


def archive(engine: Engine, *tags: str) -> Path:
    """A `docker save` archive of the images, from the cache if they are the same as the last time."""
    ids = "".join(engine.run("image", "inspect", "--format", "{{.Id}}", tag).stdout for tag in tags)
    folder = binaries.cache_folder() / "images"
    path = folder / f"{hashlib.sha256(ids.encode()).hexdigest()[:16]}.tar"
    if path.exists():
        return path
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    engine.run("save", "--output", str(unfinished), *tags)
    for old in folder.glob("*.tar"):
        old.unlink()
    unfinished.replace(path)
    say(f"saved the images in {time.monotonic() - started:.0f} s, {path.stat().st_size / 2**20:.0f} MiB")
    return path


if __name__ == "__main__":
    try:
        with engine() as found:
            print("\n".join(build_both(found)))
    except (EngineUnavailable, ImageError) as error:
        sys.exit(f"error: {error}")
