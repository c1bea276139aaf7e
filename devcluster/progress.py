"""Progress messages on stderr; stdout is for results."""

from __future__ import annotations

import sys
import time

BEAT_SECONDS = 10.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A long operation. `tick()`, which is called often, prints a line every ten seconds."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._started = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def tick(self) -> None:
        if time.monotonic() - self._said >= BEAT_SECONDS:
            self._said = time.monotonic()
            say(f"{self._text} … {self.seconds:.0f} s")
