"""SIGTERM, SIGINT and SIGHUP: the first asks for a clean end, a second SIGTERM or SIGINT ends the process at once."""

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


def _handled() -> tuple[signal.Signals, ...]:
    """SIGHUP tells that the terminal is gone. Under nohup it is ignored, and stays so."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return SIGNALS if ignored else (*SIGNALS, signal.SIGHUP)


def exit_until_claimed() -> None:
    """Let a signal end the process at once with status 0, until `StopSignals` handles signals.

    The kernel drops a SIGTERM for which process 1 of a container has no handler. A container that is stopped during its
    imports (seconds under a CPU limit) would wait for the whole grace period and then be killed.
    """
    for number in _handled():
        signal.signal(number, lambda *_: os._exit(0))


class StopSignals:
    """Use with `with` in a running event loop. The first signal sets `stopped` and calls `on_stop` with its name.

    After the second signal the exit status is 143 or 130, as in a shell. Tasks in flight stay in the journal for the
    next process. A second SIGHUP changes nothing: when a terminal is closed, both the shell and the kernel send one.
    """

    def __init__(self, on_stop: Callable[[str], None]) -> None:
        self._on_stop = on_stop
        self.stopped = asyncio.Event()
        self._signals = _handled()

    def __enter__(self) -> Self:
        self.claim()
        return self

    def claim(self) -> None:
        """Install the handlers; also needed after kopf has started, because kopf installs its own."""
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self._handle, number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.remove_signal_handler(number)

    def _handle(self, number: signal.Signals) -> None:
        if self.stopped.is_set():
            if number is signal.SIGHUP:
                return
            log.warning("received %s again: ending at once; tasks in flight stay in the journal", number.name)
            logging.shutdown()
            os._exit(128 + number)
        self.stopped.set()
        self._on_stop(number.name)
