"""What a private container engine leaves behind is found, whatever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.container_engine import left_behind


def test_nothing_is_left_of_an_engine_that_never_ran(tmp_path: Path) -> None:
    assert left_behind(tmp_path, tmp_path / "data") == []


def test_a_process_that_still_runs_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "input()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert left_behind(tmp_path, tmp_path / "data") == [f"process {' '.join(command)}"]
        process.communicate(b"\n")
    assert left_behind(tmp_path, tmp_path / "data") == []


def test_mounts_in_its_folders_are_named() -> None:
    """Every machine has mounts in /proc or /sys, which stand for those of an engine."""
    assert "mount /proc" in left_behind(Path("/proc"), Path("/nowhere"))
