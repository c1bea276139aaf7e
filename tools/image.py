"""`python -m tools.image`: build the image and run it, with a private container engine if no other one answers.

If a container engine answers, it is used, and the Dockerfile's own base image is pulled. Otherwise a private dockerd is
started (on Linux, by root) with its data in the user's cache, and debootstrap makes a base image, because there may be
no registry. Every process is ended by its pid, and mounts and cgroups are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devcluster.binaries import cache_folder
from devcluster.children import die_with_parent
from devcluster.interrupts import uninterrupted
from devcluster.packages import PackagesMissing, need
from queueworker import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ROOT = Path(__file__).parents[1]
BASE_TAG = "queueworker-base:bookworm"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")  # dockerd sets it, also without a bridge
_DEBIAN_CLIENT = Path("/usr/bin/docker")  # it has the version of Debian's dockerd; the one on PATH may not
_PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap"}


class EngineUnavailable(Exception):
    """No container engine answers, and none can be started here. The message says why."""


class ImageError(Exception):
    """The image or its base could not be built. The message ends with the command's output."""


def default_tag() -> str:
    """The image that the manifests and the chart use."""
    return f"queueworker-operator:{__version__}"


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that answers. A `private` one is ours: it has no bridge network, perhaps no registry."""

    client: tuple[str, ...]
    private: bool

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGS` to its end. Raises `ImageError` with its output if it fails and `check` is set."""
        done = subprocess.run([*self.client, *args], capture_output=True, text=True, check=False, env=self.env())
        if check and done.returncode != 0:
            raise ImageError(f"docker {' '.join(args[:2])} failed: {(done.stderr + done.stdout).strip()[-3000:]}")
        return done

    def env(self) -> dict[str, str]:
        return os.environ | {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine that answers, otherwise a private one until the end of the block. Raises `EngineUnavailable`."""
    client = shutil.which("docker")
    if client and _answers((client,)):
        yield Engine((client,), private=False)
        return
    _need_root()
    _need_packages()
    with _private_engine() as own:
        yield own


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
    _say(f"building {tag}")
    started = time.monotonic()
    engine.run("build", "--network", "host", "--tag", tag, *arguments, str(checkout))
    if engine.private:
        engine.run("image", "prune", "--force")  # the image that had this tag before
    _say(f"built {tag} in {time.monotonic() - started:.0f} s")


def _revision() -> str:
    """The commit; empty outside of a Git checkout."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _answers(client: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(
            [*client, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def _need_root() -> None:
    if sys.platform != "linux":
        raise EngineUnavailable("no container engine answers, and a private one can be started on Linux only")
    if os.geteuid() != 0:
        raise EngineUnavailable("no container engine answers, and a private one can be started by root only")


def _need_packages() -> None:
    try:
        need(_PACKAGES)
    except PackagesMissing as error:
        raise EngineUnavailable(f"no container engine answers, and a private one cannot be started: {error}") from error


@contextmanager
def _private_engine() -> Iterator[Engine]:
    data = cache_folder() / "docker"
    data.mkdir(parents=True, exist_ok=True)
    with (
        _lock(data.with_suffix(".lock"), "waiting for another process that uses the private container engine"),
        tempfile.TemporaryDirectory(prefix="qw-docker-") as name,
    ):
        folder = Path(name)
        cgroup = f"/{folder.name}"
        address = f"unix://{folder}/docker.sock"
        client = shutil.which("docker") if not _DEBIAN_CLIENT.exists() else str(_DEBIAN_CLIENT)
        assert client is not None
        found = Engine((client, "--host", address), private=True)
        log, forwarding = folder / "dockerd.log", _IP_FORWARD.read_text()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *("dockerd", "--host", address, "--pidfile", str(folder / "docker.pid")),
                    *("--data-root", str(data), "--exec-root", str(folder / "exec")),
                    *("--default-ulimit", "nofile=20000:20000", "--cgroup-parent", cgroup),
                    *("--bridge", "none", "--iptables=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            _await_engine(found, process, log)
            yield found
        finally:
            with uninterrupted():
                _end(process)
                _unmount(folder, data)
                _remove_cgroups(cgroup)
                if _IP_FORWARD.read_text() != forwarding:
                    _IP_FORWARD.write_text(forwarding)


def _await_engine(engine: Engine, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(engine.client):
            return
        time.sleep(0.2)
    tail = log.read_text(errors="replace").strip()[-1500:]
    raise EngineUnavailable(f"no container engine answers, and dockerd does not run on this machine. Its log:\n{tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Dockerd ends its containerd and its containers on SIGTERM."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _mounts(*folders: Path) -> list[str]:
    """The mount points inside the folders, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounts = [line.split()[1].replace("\\040", " ") for line in lines]
    within = [mount for mount in mounts if any(Path(mount).is_relative_to(folder) for folder in folders)]
    return sorted(within, key=len, reverse=True)


def _unmount(*folders: Path) -> None:
    for mount in _mounts(*folders):
        subprocess.run(["umount", mount], check=False, capture_output=True)


def _remove_cgroups(cgroup: str) -> None:
    """Remove the parent cgroup of our containers, which is empty by now."""
    root = Path("/sys/fs/cgroup")
    for top in (root, *root.iterdir()):
        folder = top / cgroup.lstrip("/")
        if top.is_dir() and folder.is_dir():
            for inner, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(inner)


def _ready_base(engine: Engine) -> str:
    """Import the base image that debootstrap made. It is made once and kept in the cache."""
    if engine.run("image", "inspect", BASE_TAG, check=False).returncode != 0:
        engine.run("import", "--change", "ENV LANG=C.UTF-8", str(_base_archive()), BASE_TAG)
    return BASE_TAG


def _base_archive() -> Path:
    archive = cache_folder() / "debian-bookworm-python3.tar"
    if archive.exists():
        return archive
    _say("making a base image of Debian bookworm with Python, by debootstrap (a minute, once)")
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
        _unmount(folder)
        if not _mounts(folder):  # a folder that is still mounted must not be emptied
            shutil.rmtree(folder, ignore_errors=True)
    _say(f"made the base image in {time.monotonic() - started:.0f} s")
    return archive


@contextmanager
def _lock(path: Path, waiting: str) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
