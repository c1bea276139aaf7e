"""Writes log lines, and drops those that cannot be written: a full pipe that nobody reads would stop the process."""

from __future__ import annotations

import logging
import os
import select
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WAIT_SECONDS = 1.0
"""The longest time that log lines hold up the process, one after the other."""
WAIT_SHARE = 0.02
"""Of the time that passes, this much may be waited again."""
# What a pipe takes without waiting once `poll` says that it can be written to.
_PIECE_BYTES = select.PIPE_BUF


class LogOutput(logging.Handler):
    """Lines that it drops are counted, and the next one that is written says how many."""

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        room_within: Callable[[int, float], bool] | None = None,
    ) -> None:
        super().__init__()
        self._stream = stream
        self._clock = clock
        self._room_within = room_within or _room_within
        self._patience = MAX_WAIT_SECONDS
        self._last_wait = clock()
        self._dropped = 0
        self._within_line = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped and self._write(self.format(_note(self._dropped))):
                self._dropped = 0
            if self._dropped or not self._write(self.format(record)):
                self._dropped += 1
        except Exception:  # as all handlers of the standard library do
            self.handleError(record)

    def _write(self, line: str) -> bool:
        """False if there was no room for the line, or for all of it."""
        self._stream.flush()  # what was printed comes first
        number = self._stream.fileno()
        start = "\n" if self._within_line else ""
        rest = f"{start}{line}\n".encode(self._stream.encoding, "backslashreplace")
        while rest:
            if not self._has_room(number):
                return False
            try:
                rest = rest[os.write(number, rest[:_PIECE_BYTES]) :]
            except OSError:  # a full disk, a reader that has gone
                return False
            self._within_line = bool(rest)
        return True

    def _has_room(self, number: int) -> bool:
        if self._room_within(number, 0.0):
            return True
        now = self._clock()
        self._patience = min(MAX_WAIT_SECONDS, self._patience + WAIT_SHARE * (now - self._last_wait))
        has_room = self._room_within(number, self._patience)
        self._last_wait = self._clock()
        self._patience = max(0.0, self._patience - (self._last_wait - now))
        return has_room


def _room_within(number: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(1000 * seconds))


def _note(dropped: int) -> logging.LogRecord:
    text = "%d lines of the log could not be written to standard error"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (dropped,), None)
