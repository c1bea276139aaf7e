"""Processes that the bench starts, and what they use: CPU and memory of the whole tree (Linux)."""

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
    """Run it, in a session of its own, until the block ends; then SIGTERM, and SIGKILL for what does not end of it."""
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
    """SIGTERM; what has not ended in time is killed, with all its session."""
    if running.poll() is None:
        running.terminate()
    try:
        running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def cpu_seconds(pid: int) -> float:
    """User and system seconds of the process, its children, and those that they have waited for."""
    return sum(map(_cpu_ticks, _tree(pid))) / CLOCK_TICKS


def memory_mib(pid: int) -> float:
    """Proportional set size of the process and its children: what they share counts once."""
    return sum(map(_pss_kib, _tree(pid))) / 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it has ended."""
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
