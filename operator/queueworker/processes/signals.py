"""SIGTERM and SIGINT: the first asks for a clean end, the second ends the process at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_until_claimed() -> None:
    """End at once, with status 0, until `StopSignals` takes the signals: nothing has begun that could be drained.

    The kernel drops a SIGTERM that process 1 of a container has no handler for: one that is stopped while
    it still imports (seconds, under a CPU limit) would sit out its grace period, and be killed.
    """
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


class StopSignals:
    """`with`, in a running loop. The first signal sets `stopped` and calls `on_stop` with its name.

    The second's exit status is the shell's for that signal, 143 or 130; what was in flight is in the
    journal, and the next process takes it up.
    """

    def __init__(self, on_stop: Callable[[str], None]) -> None:
        self._on_stop = on_stop
        self.stopped = asyncio.Event()

    def __enter__(self) -> Self:
        self.claim()
        return self

    def claim(self) -> None:
        """Take the signals (again: kopf takes them for itself when it starts)."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._handle, number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    def _handle(self, number: signal.Signals) -> None:
        if self.stopped.is_set():
            log.warning("%s again: ending at once; what is in flight stays in the journal", number.name)
            logging.shutdown()
            os._exit(128 + number)
        self.stopped.set()
        self._on_stop(number.name)
