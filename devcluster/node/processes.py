"""The node's programs: they outlive the process that starts them, and are found again by their pid files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from devcluster.node.layout import Layout

STOP_SECONDS = 10.0
OWNER = "owner"
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


def start(layout: Layout, name: str, command: Sequence[str]) -> None:
    """Start a program in a session of its own. Raises OSError if it cannot be started."""
    with (layout.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    (layout.pids / name).write_text(f"{process.pid} {_started(process.pid)}")


def record_owner(layout: Layout) -> None:
    """Make this process the node's owner: when it has ended without taking the node down, another one may."""
    (layout.pids / OWNER).write_text(f"{os.getpid()} {_started(os.getpid())}")


def abandoned(layout: Layout) -> bool:
    """True if the node's owner has ended. A node that was made to be kept has none."""
    return (layout.pids / OWNER).exists() and not running(layout, OWNER)


def running(layout: Layout, name: str) -> bool:
    return _pid(layout, name) is not None


def end(layout: Layout, name: str, patience: float = STOP_SECONDS) -> None:
    """Send SIGTERM, and SIGKILL if the program does not end in `patience` seconds. Does nothing if it does not run."""
    pid = _pid(layout, name)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        if not await_end([pid], patience):
            _signal(pid, signal.SIGKILL)
            await_end([pid], STOP_SECONDS)
    (layout.pids / name).unlink(missing_ok=True)


def kill(pids: Sequence[int]) -> bool:
    """Send SIGKILL, and return True if all of them have ended within `STOP_SECONDS`."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    return await_end(pids, STOP_SECONDS)


def await_end(pids: Sequence[int], seconds: float) -> bool:
    """True if all of them have ended within the time."""
    deadline = time.monotonic() + seconds
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def of_container(container_id: str) -> list[int]:
    """The processes of a container, whose id containerd writes into the path of their cgroup.

    Raises ValueError for what is no such id, because a part of one could mean other processes.
    """
    if not _CONTAINER_ID.fullmatch(container_id):
        raise ValueError(f"not the id of a container: {container_id!r}")
    return [pid for pid, _ in _stats() if container_id in _cgroup(pid)]


def shims(layout: Layout) -> list[int]:
    """The shims of containerd, which outlive it, and everything that runs in their containers."""
    parents = {pid: int(fields[1]) for pid, fields in _stats()}
    found = [pid for pid in parents if _is_shim(pid, layout)]
    for pid in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def strays(layout: Layout, names: Collection[str]) -> list[int]:
    """Programs of these names that run for the node: those without a pid file, after the others were ended.

    Whoever started such a program was interrupted before it could write the file.
    """
    lines = {pid: _command_line(pid) for pid, _ in _stats()}
    ours = {pid: Path(line.split(" ")[0]).name for pid, line in lines.items() if str(layout.folder) in line}
    return [pid for pid, name in ours.items() if name in names]


def about(text: str) -> list[str]:
    """Command lines that contain the text, without our own."""
    lines = {pid: _command_line(pid) for pid, _ in _stats() if pid != os.getpid()}
    return [line for line in lines.values() if text in line]


def _is_shim(pid: int, layout: Layout) -> bool:
    line = _command_line(pid)
    return "containerd-shim" in line and f"-address {layout.socket}" in line


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _cgroup(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cgroup").read_text()
    return ""


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Process ids and the fields of /proc/PID/stat from `state` on, of all processes."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                yield int(folder.name), _fields(int(folder.name))


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _alive(pid: int) -> bool:
    """A child of ours that has ended stays a zombie until we wait for it."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(OSError):
        return _fields(pid)[0] != "Z"
    return False


def _started(pid: int) -> str:
    """The time at which the process started, in clock ticks since boot: a pid alone may be another process's."""
    with contextlib.suppress(OSError):
        return _fields(pid)[19]
    return ""


def _pid(layout: Layout, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        pid, started = (layout.pids / name).read_text().split()
        if _alive(int(pid)) and _started(int(pid)) == started:
            return int(pid)
    return None


def _signal(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, sign)
