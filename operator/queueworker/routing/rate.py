"""How many tasks were reported in the last minute, from samples of a counter."""

from __future__ import annotations

from collections import deque

MINUTE_SECONDS = 60.0


class PerMinute:
    """`sample` is called about once a second, so it holds some sixty samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now: float, count: int) -> None:
        """Take the counter's value at `now` (monotonic seconds)."""
        self._samples.append((now, count))
        while now - self._samples[0][0] > MINUTE_SECONDS:
            self._samples.popleft()

    def of(self, count: int) -> int:
        """The counter's growth over the last minute."""
        return count - self._samples[0][1] if self._samples else 0
