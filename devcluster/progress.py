"""Progress messages on stderr; stdout is for results."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Self

PLAIN_SECONDS = 10.0
TERMINAL_SECONDS = 0.5
_CLEAR_LINE = "\r\x1b[K"


def say(text: str) -> None:
    """Print a line; on a terminal it replaces the line of a `Progress`."""
    print(_CLEAR_LINE + text if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


class Progress:
    """A long operation. `tick()`, which is called often, shows how far it is.

    On a terminal one line is written over and over, and taken away at the end of the block; elsewhere there is a line
    every ten seconds.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._started = self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def tick(self, detail: str = "") -> None:
        """Show the time that has passed, and `detail`, such as `17 of 200 packages`."""
        if time.monotonic() - self._said < (TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS):
            return
        self._said = time.monotonic()
        line = f"{self._text} … {self.seconds:.0f} s" + (f": {detail}" if detail else "")
        if self._terminal:
            print(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)
        else:
            say(line)
