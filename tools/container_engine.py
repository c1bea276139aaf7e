"""A container engine: the one that answers, otherwise a private dockerd (on Linux, by root).

The private one has its data in the user's cache. Every process of it is ended by its pid, mounts and cgroups are
removed, and what is left is an error that names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.binaries import cache_folder
from devcluster.children import die_with_parent
from devcluster.interrupts import uninterrupted
from devcluster.node import processes, traces
from devcluster.packages import PackagesMissing, need
from devcluster.progress import say
from devcluster.spawning import end

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")  # dockerd sets it, also without a bridge
_RUN_FOLDER = Path("/run/docker")  # dockerd looks for plugins there, wherever its own folders are, and makes it
_DEBIAN_CLIENT = Path("/usr/bin/docker")  # it has the version of Debian's dockerd; the one on PATH may not
_PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap"}


class EngineUnavailable(Exception):
    """No container engine answers, and none can be started here. The message says why."""


class ImageError(Exception):
    """The image or its base could not be built. The message ends with the command's output."""


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
        log, forwarding, had_run_folder = folder / "dockerd.log", _IP_FORWARD.read_text(), _RUN_FOLDER.exists()
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
                end(process, patience=STOP_SECONDS)  # dockerd ends its containerd and its containers on SIGTERM
                unmount(folder, data)
                _remove_cgroups(cgroup)
                if not had_run_folder:
                    _remove_empty(_RUN_FOLDER / "plugins", _RUN_FOLDER)
                if _IP_FORWARD.read_text() != forwarding:
                    _IP_FORWARD.write_text(forwarding)
                left = left_behind(folder, data)
                if _RUN_FOLDER.exists() != had_run_folder:
                    left.append(f"folder {_RUN_FOLDER}")
                if left:
                    raise ImageError("the private container engine left on this machine: " + "; ".join(left))


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


def mounts(*folders: Path) -> list[str]:
    """The mount points inside the folders, the innermost first."""
    within = [mount for mount in traces.mounts() if any(Path(mount).is_relative_to(folder) for folder in folders)]
    return sorted(within, key=len, reverse=True)


def unmount(*folders: Path) -> None:
    for mount in mounts(*folders):
        subprocess.run(["umount", mount], check=False, capture_output=True)


def _remove_cgroups(cgroup: str) -> None:
    """Remove the parent cgroup of our containers, which is empty by now."""
    root = Path("/sys/fs/cgroup")
    for top in (root, *root.iterdir()):
        folder = top / cgroup.lstrip("/")
        if top.is_dir() and folder.is_dir():
            _remove_empty(*(inner for inner, _, _ in os.walk(folder, topdown=False)))


def left_behind(folder: Path, data: Path) -> list[str]:
    """What is still there of a private engine with these folders, a line each."""
    found = {
        "process": processes.about(str(folder)),
        "mount": mounts(folder, data),
        "cgroup": [str(path) for path in traces.cgroups() if path.name == folder.name],
    }
    return [f"{kind} {item}" for kind, items in found.items() for item in items]


def _remove_empty(*folders: str | Path) -> None:
    """Those that are not empty stay."""
    for folder in folders:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@contextmanager
def _lock(path: Path, waiting: str) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
