"""`python -m tools.image`: build the image and run it, with a private container engine if no other one answers.

If a container engine answers, it is used, and the Dockerfile's own base image is pulled. Otherwise a private dockerd is
started (on Linux, by root) with its data in the user's cache, and debootstrap makes a base image, because there may be
no registry. Every process is ended by its pid, and mounts and cgroups are removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devcluster.binaries import cache_folder
from devcluster.progress import say
from queueworker import __version__
from tools.container_engine import Engine, EngineUnavailable, ImageError, engine, mounts, unmount

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).parents[1]
BASE_TAG = "queueworker-base:bookworm"


def default_tag() -> str:
    """The image that the manifests and the chart use."""
    return f"queueworker-operator:{__version__}"


def build(engine: Engine, tag: str, base: str | None = None, *, checkout: Path = ROOT, cache: bool = True) -> None:
    """Build the Dockerfile. If `base` is None, its own base image is used; in a private engine, one that we make."""
    if base is None and engine.private:
        base = _ready_base(engine)
    arguments = ["--build-arg", f"VERSION={__version__}", "--build-arg", f"REVISION={_revision()}"]
    if base is not None:
        arguments += ["--build-arg", f"BASE_IMAGE={base}"]
    authorities = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
    if authorities and Path(authorities).is_file():
        arguments += ["--secret", f"id=ca,src={authorities}"]
    if not cache:
        arguments.append("--no-cache")
    say(f"building {tag}")
    started = time.monotonic()
    engine.run("build", "--network", "host", "--tag", tag, *arguments, str(checkout))
    if engine.private:
        engine.run("image", "prune", "--force")  # the image that had this tag before
    say(f"built {tag} in {time.monotonic() - started:.0f} s")


def _revision() -> str:
    """The commit; empty outside of a Git checkout."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _ready_base(engine: Engine) -> str:
    """Import the base image that debootstrap made. It is made once and kept in the cache."""
    if engine.run("image", "inspect", BASE_TAG, check=False).returncode != 0:
        engine.run("import", "--change", "ENV LANG=C.UTF-8", str(_base_archive()), BASE_TAG)
    return BASE_TAG


def _base_archive() -> Path:
    archive = cache_folder() / "debian-bookworm-python3.tar"
    if archive.exists():
        return archive
    say("making a base image of Debian bookworm with Python, by debootstrap (a minute, once)")
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="debootstrap-", dir=archive.parent))
    try:
        tree, unfinished = folder / "root", folder / archive.name
        for command in (
            ["debootstrap", "--variant=minbase", "--include=python3,ca-certificates", "bookworm", str(tree)],
            [
                *("tar", "--create", "--file", str(unfinished), "--directory", str(tree), "--numeric-owner"),
                *("--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*", "."),
            ],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise ImageError(f"{command[0]} failed: {(done.stderr + done.stdout).strip()[-1500:]}")
        unfinished.replace(archive)
    finally:
        unmount(folder)
        if not mounts(folder):  # a folder that is still mounted must not be emptied
            shutil.rmtree(folder, ignore_errors=True)
    say(f"made the base image in {time.monotonic() - started:.0f} s")
    return archive


app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
_Tag = Annotated[str, typer.Option(help="Name and tag of the image.", default_factory=default_tag, show_default=False)]


@app.command(name="build")
def build_command(
    tag: _Tag,
    base: Annotated[
        str | None, typer.Option(help="Base image; default: the Dockerfile's, or one that we make.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Archive to write the image to as well (`docker save`).")] = None,
) -> None:
    """Build the image and print its name as the last line."""
    with engine() as found:
        build(found, tag, base)
        if save is not None:
            found.run("save", "--output", str(save), tag)
    print(tag)


@app.command(name="run", context_settings={"ignore_unknown_options": True})
def run_command(
    tag: _Tag,
    arguments: Annotated[list[str] | None, typer.Argument(help="After --: arguments of `docker run`.")] = None,
) -> None:
    """Build the image and run it in the host's network with a read-only root; Ctrl-C drains it.

    Example: QUEUE_SERVICE_URL=http://127.0.0.1:8081 python -m tools.image run -- -e QUEUE_SERVICE_URL
    """
    with engine() as found:
        build(found, tag)
        command = [*found.client, "run", "--rm", "--network", "host", "--read-only", "--stop-timeout", "40"]
        process = subprocess.Popen([*command, *(arguments or ()), tag])
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the client gets Ctrl-C too, and forwards it
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # the client forwards it, and the worker drains
                process.wait()
    sys.exit(status)


def _end_by_signal(number: int, _frame: FrameType | None) -> None:
    """Raise SystemExit at SIGTERM, so that the engine is stopped in order."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_by_signal)
    try:
        app()
    except (EngineUnavailable, ImageError) as error:
        sys.exit(f"error: {error}")
