"""What a router did in the last ten minutes: points for plots, and the rates and latencies of the last minute.

The hot path is not involved: the points are differences of counters, taken by a timer.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from enum import StrEnum

from queueworker.routing.counters import Counters, quantile

POINT_SECONDS = 5.0
"""Time between two points."""
POINTS = 120
"""Points that are kept: ten minutes."""

MINUTE_SECONDS = 60.0


class Series(StrEnum):
    COMPLETED = "completed_per_minute"
    FAILED = "failed_per_minute"
    P50 = "p50_seconds"
    P95 = "p95_seconds"
    IN_USE = "in_use"
    CAPACITY = "capacity"


class PerMinute:
    """How many tasks were reported in the last minute, from samples of a counter: one a second, so some sixty."""

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


class History:
    """`sample` is called about once a second. Takes some 3 KiB and never grows."""

    def __init__(self, counters: Counters) -> None:
        self.points = 0
        """Points taken since the router started, including those that are not kept any more."""
        self.p50_seconds: float | None = None
        """Median of the time that executors took in the last minute; None if no task ended in it."""
        self.p95_seconds: float | None = None
        self._counters = counters
        self._routed, self._failed = PerMinute(), PerMinute()
        self._series = {series: array("f", [math.nan]) * POINTS for series in Series}
        self._before = (0, 0)
        self._executions = deque([list(counters.execution.counts)], maxlen=round(MINUTE_SECONDS / POINT_SECONDS) + 1)
        self._next_at: float | None = None

    @property
    def per_minute(self) -> int:
        """Tasks reported in the last minute."""
        return self._routed.of(self._counters.routed)

    @property
    def failed_per_minute(self) -> int:
        """Tasks reported as failed in the last minute."""
        return self._failed.of(self._counters.failed)

    def sample(self, now: float) -> bool:
        """Take the counters at `now` (monotonic seconds). True: a point is due, and `add` has to be called."""
        self._routed.sample(now, self._counters.routed)
        self._failed.sample(now, self._counters.failed)
        if self._next_at is None:
            self._next_at = now + POINT_SECONDS
        return now >= self._next_at

    def add(self, now: float, in_use: int, capacity: int) -> None:
        """Add the point that is due. Points that were missed are gaps."""
        assert self._next_at is not None
        missed = min(POINTS, int((now - self._next_at) // POINT_SECONDS))
        for _ in range(missed):
            self._put(dict.fromkeys(Series, math.nan))
        self._next_at = max(self._next_at + (missed + 1) * POINT_SECONDS, now)
        counters = self._counters
        self._executions.append(list(counters.execution.counts))
        counts = [new - old for new, old in zip(self._executions[-1], self._executions[0], strict=True)]
        self.p50_seconds, self.p95_seconds = quantile(counts, 0.5), quantile(counts, 0.95)
        completed, failed = counters.completed - self._before[0], counters.failed - self._before[1]
        self._before = (counters.completed, counters.failed)
        factor = MINUTE_SECONDS / POINT_SECONDS / (missed + 1)
        self._put(
            {
                Series.COMPLETED: completed * factor,
                Series.FAILED: failed * factor,
                Series.P50: math.nan if self.p50_seconds is None else self.p50_seconds,
                Series.P95: math.nan if self.p95_seconds is None else self.p95_seconds,
                Series.IN_USE: in_use,
                Series.CAPACITY: capacity,
            }
        )

    def newest(self, series: Series, most: int = POINTS) -> list[float | None]:
        """The newest points, the oldest of them first; None is a gap."""
        kept = min(self.points, most, POINTS)
        ring = self._series[series]
        end = self.points % POINTS
        found = [*ring[end:], *ring[:end]][POINTS - kept :]
        return [None if math.isnan(value) else round(value, 4) for value in found]

    def _put(self, values: dict[Series, float]) -> None:
        for series, value in values.items():
            self._series[series][self.points % POINTS] = value
        self.points += 1
