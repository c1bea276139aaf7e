"""The memory that this process may use, by the limit of its container."""

from __future__ import annotations

from pathlib import Path

from queueworker.routing.limits import MIB
from queueworker.routing.memory_budget import DEFAULT_BUDGET_BYTES, MemoryBudget

CGROUPS = Path("/sys/fs/cgroup")
# Version 2 and version 1; each holds bytes, or `max`.
_FILES = ("memory.max", "memory/memory.limit_in_bytes")
PART_OF_LIMIT = 1 / 2
"""The rest is for the interpreter, its modules and buffers of sockets."""
MIN_BUDGET_BYTES = 16 * MIB
NO_LIMIT = 1 << 60
"""Version 1 writes a number above this when there is none."""


def memory_budget(mebibytes: int | None, cgroups: Path = CGROUPS) -> MemoryBudget:
    """The budget as it is set; if it is not, a part of the container's memory limit."""
    return MemoryBudget(_default(cgroups) if mebibytes is None else mebibytes * MIB)


def _default(cgroups: Path) -> int:
    for name in _FILES:
        try:
            limit = int((cgroups / name).read_text())
        except (OSError, ValueError):
            continue
        return DEFAULT_BUDGET_BYTES if limit >= NO_LIMIT else max(int(limit * PART_OF_LIMIT), MIN_BUDGET_BYTES)
    return DEFAULT_BUDGET_BYTES
