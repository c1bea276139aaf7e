"""Starts processes, and measures CPU and memory of their whole trees (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.children import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 40.0


@contextmanager
def process(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a session of its own. At the end of the block it gets a SIGTERM, and later a SIGKILL."""
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield running
    finally:
        stop(running)


def stop(running: subprocess.Popen[str], seconds: float = STOP_SECONDS) -> None:
    """Send SIGTERM, and kill the session if the process has not ended after `seconds`."""
    if running.poll() is None:
        running.terminate()
    try:
        running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def cpu_seconds(pid: int) -> float:
    """User and system CPU of the process and its descendants, including those that have been waited for."""
    return sum(map(_cpu_ticks, _tree(pid))) / CLOCK_TICKS


def memory_mib(pid: int) -> float:
    """Proportional set size of the process and its descendants; shared pages count once."""
    return sum(map(_pss_kib, _tree(pid))) / 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if the process has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children[int(fields[1])].append(int(folder.name))
    found = [pid]
    for member in found:
        found += children[member]
    return found


def _cpu_ticks(pid: int) -> int:
    return sum(map(int, _stat(pid)[11:15]))


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
