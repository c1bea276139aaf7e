"""How late the event loop runs what is due: the sign of a process that has too much to do."""

from __future__ import annotations

import asyncio
from typing import Self

from queueworker.routing.counters import Histogram

PERIOD_SECONDS = 0.25


class LoopLag:
    """Use with `with`, in the event loop: it runs a timer every `PERIOD_SECONDS` and observes how late that was."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._start(asyncio.get_running_loop())
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + PERIOD_SECONDS
        self._timer = loop.call_at(due, self._ran, loop, due)

    def _ran(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.histogram.observe(max(0.0, loop.time() - due))
        self._start(loop)
