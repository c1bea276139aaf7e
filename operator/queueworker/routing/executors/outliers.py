"""Which executors are ejected because they fail whatever they are given. Pure; after Envoy's outlier detection.

A broken executor whose health checks succeed fails faster than the others work: its slots are free first, it looks
least loaded, and the whole queue would drain into it (a black hole; Prequal, NSDI 2024, calls it sinkholing). Only
failures of the executor's own count: a 5xx, an answer that is not a result, no connection or a broken one, no
answer in time.

As in Envoy, consecutive failures eject, for longer each time, and only a part of the pool: what fails everywhere (a
bad batch of tasks) is not the executors' fault, and the other tasks need executors. An executor that fails most tasks,
but never five in a row, is ejected too, unless most executors do.

A result that says `failed` is the task's failure and ejects nobody. But where the tasks of one executor fail in a row
and those of others do not, failing fast must not attract more tasks: each of its slots cools down for as long as a
task usually takes.
"""

from __future__ import annotations

from dataclasses import dataclass

CONSECUTIVE_FAILURES = 5
"""So many consecutive failures make an outlier."""
RECENT_OUTCOMES = 10
MAX_RECENT_FAILURES = 5
"""More failures than these among an executor's last outcomes make an outlier, too."""
EJECTION_SECONDS = 10.0
MAX_EJECTION_SECONDS = 300.0
MAX_EJECTED_SHARE = 0.5
INITIAL_TASK_SECONDS = 1.0
"""How long a task is assumed to take before the first one has completed."""


@dataclass(slots=True)
class FailureHistory:
    """The consecutive failures of one executor, and its ejections. Times are seconds on one monotonic clock."""

    consecutive_failures: int = 0
    """Failures of the executor's own since its last result."""
    recent: int = 0
    """Its last outcomes as bits, the newest lowest: 1 for a failure of its own, 0 for a result."""
    ejections: int = 0
    """The last ejection was this many times as long as a first one."""
    returned_at: float = 0.0
    """End of the last ejection."""
    consecutive_failed_tasks: int = 0
    """Results that said `failed` since the last one that said `completed`."""

    @property
    def reason(self) -> str:
        """Why the executor is an outlier; empty when it is none."""
        if self.consecutive_failures >= CONSECUTIVE_FAILURES:
            return f"{self.consecutive_failures} failures in a row"
        return f"{self.recent.bit_count()} failures among the last {RECENT_OUTCOMES} tasks" if self.fails_most else ""

    @property
    def fails_most(self) -> bool:
        return self.recent.bit_count() > MAX_RECENT_FAILURES

    def failed(self) -> None:
        """Record a failure."""
        self.consecutive_failures += 1
        self._add(1)

    def gave_a_result(self) -> None:
        """Record a result."""
        self.consecutive_failures = 0
        if self.recent:
            self._add(0)

    def _add(self, failure: int) -> None:
        self.recent = (self.recent << 1 | failure) & ((1 << RECENT_OUTCOMES) - 1)

    def eject(self, now: float) -> float:
        """Record an ejection. Returns its length in seconds.

        Each one is a step longer than the last; each step's length without an ejection takes one step back.
        """
        steps_back = int((now - self.returned_at) / EJECTION_SECONDS)
        self.ejections = max(0, self.ejections - steps_back) + 1
        return min(self.ejections * EJECTION_SECONDS, MAX_EJECTION_SECONDS)

    def returned(self, now: float) -> None:
        """Record the end of an ejection: until the executor has given a result, one more failure is enough."""
        self.returned_at = now
        self.consecutive_failures = CONSECUTIVE_FAILURES - 1


def max_ejected(sound: int) -> int:
    """How many executors may be ejected at once, of so many whose health checks succeed."""
    return int(sound * MAX_EJECTED_SHARE)


def slot_cooldown(took: float, usual: float, failing: int, healthy_count: int) -> float:
    """Seconds for which a slot cools down after a failed task that took so many seconds, one of several in a row.

    `usual`: seconds that a completed task takes; `failing`: executors whose last tasks all failed. If those are more
    than half of the healthy ones, the tasks are to blame, and no slot cools down.
    """
    return max(0.0, usual - took) if failing <= max_ejected(healthy_count) else 0.0
