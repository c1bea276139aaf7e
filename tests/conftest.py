"""For the tests of all levels."""

from __future__ import annotations

import gc
import signal
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure() -> None:
    """A job in a shell's background ignores SIGINT, and so would all that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Component tests evenly among unit tests: they wait while those compute, in each worker of pytest-xdist."""
    levels: dict[str, list[pytest.Item]] = {}
    for item in items:
        levels.setdefault(item.nodeid.split("/")[1], []).append(item)
    if levels.keys() == {"unit", "component"}:
        places = [(Fraction(i, len(level)), item) for level in levels.values() for i, item in enumerate(level)]
        items[:] = [item for _, item in sorted(places, key=lambda place: place[0])]


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The first failure of each test that was run again, so that it can be mended although the run is green."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"first failure of {report.nodeid}, which was run again")
        terminalreporter.write_line(report.longreprtext)
