"""SIGTERM and SIGINT: the first signal asks for a clean end, the second ends the process at once."""

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
    """Let a signal end the process at once with status 0, until `StopSignals` handles signals.

    The kernel drops a SIGTERM for which process 1 of a container has no handler. A container that is stopped during its
    imports (seconds under a CPU limit) would wait for the whole grace period and then be killed.
    """
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


class StopSignals:
    """Use with `with` in a running event loop. The first signal sets `stopped` and calls `on_stop` with its name.

    After the second signal the exit status is 143 or 130, as in a shell. Tasks in flight stay in the journal for the
    next process.
    """

    def __init__(self, on_stop: Callable[[str], None]) -> None:
        self._on_stop = on_stop
        self.stopped = asyncio.Event()

    def __enter__(self) -> Self:
        self.claim()
        return self

    def claim(self) -> None:
        """Install the handlers; also needed after kopf has started, because kopf installs its own."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._handle, number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    def _handle(self, number: signal.Signals) -> None:
        if self.stopped.is_set():
            log.warning("received %s again: ending at once; tasks in flight stay in the journal", number.name)
            logging.shutdown()
            os._exit(128 + number)
        self.stopped.set()
        self._on_stop(number.name)
