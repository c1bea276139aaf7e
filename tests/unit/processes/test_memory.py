"""The memory budget of a process, by the limit of its container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queueworker.processes.memory import memory_budget
from queueworker.routing.limits import MIB

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("file", "text", "mebibytes"),
    [
        ("memory.max", f"{1024 * MIB}\n", 512),
        ("memory.max", f"{8192 * MIB}\n", 4096),
        ("memory.max", f"{20 * MIB}\n", 16),
        ("memory.max", "max\n", 512),
        ("memory/memory.limit_in_bytes", f"{256 * MIB}\n", 128),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 512),
        ("memory.stat", "anon 1\n", 512),
    ],
)
def test_the_budget_is_half_of_the_containers_limit(tmp_path: Path, file: str, text: str, mebibytes: int) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert memory_budget(None, tmp_path).max_bytes == mebibytes * MIB


def test_what_is_set_wins_over_the_containers_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{1024 * MIB}\n")
    assert memory_budget(100, tmp_path).max_bytes == 100 * MIB
