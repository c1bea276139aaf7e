"""The machine of a run, described in a line."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    return ", ".join(
        (
            f"{cpu_model()}, {os.cpu_count()} cores",
            f"Linux {platform.release()}",
            f"Python {platform.python_version()}",
        )
    )


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]
