"""Which executor is left alone for a time because it fails whatever it is given. Pure, after Envoy's outlier detection.

A broken executor whose health checks are good fails faster than the others work: its slots are free
first, it looks least loaded, and the whole queue would drain into it (a black hole; Prequal, NSDI 2024,
calls it sinkholing). Failures count that are the executor's own: a 5xx, an answer that is no result, a
broken connection, no answer in time.

As in Envoy, so many failures in a row eject, for longer each time, and only a part of the pool: what
fails everywhere (a bad batch of tasks) is not the executors' fault, and somebody has to take the rest.

A result that says `failed` is the task's, and ejects nobody. Yet where one executor's tasks fail in a row
and others' do not, failing fast must gain it nothing: each of its slots rests until a task is usually done.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_IN_A_ROW = 5
EJECTION_SECONDS = 10.0
MOST_EJECTION_SECONDS = 300.0
MOST_OF_THE_POOL = 0.5
USUAL_SECONDS = 1.0
"""What a completed task is taken to need before any has told."""


@dataclass(slots=True)
class Record:
    """What one executor has failed. Times are seconds on one monotonic clock."""

    in_a_row: int = 0
    ejections: int = 0
    """The last ejection was so many times the first one's length."""
    returned_at: float = 0.0
    tasks_failed: int = 0
    """Results in a row that said `failed`."""

    def failed(self) -> bool:
        """Take a failure. Returns whether the executor is an outlier."""
        self.in_a_row += 1
        return self.in_a_row >= FAILURES_IN_A_ROW

    def eject(self, now: float) -> float:
        """Seconds to leave it alone: one step more each time, and one less for each step that it then did well."""
        did_well = int((now - self.returned_at) / EJECTION_SECONDS)
        self.ejections = max(0, self.ejections - did_well) + 1
        return min(self.ejections * EJECTION_SECONDS, MOST_EJECTION_SECONDS)

    def returned(self, now: float) -> None:
        """It is tried again: until it has done one task well, one more failure is enough."""
        self.returned_at = now
        self.in_a_row = FAILURES_IN_A_ROW - 1


def at_most(healthy: int) -> int:
    """How many may be ejected at once, of so many whose health checks are good."""
    return int(healthy * MOST_OF_THE_POOL)


def rest(took: float, usual: float, failing: int, healthy: int) -> float:
    """Seconds that a slot rests after a failed task, one of a row of them.

    `usual`: what a task that is completed takes; `failing`: the executors that have such a row now.
    """
    return max(0.0, usual - took) if failing <= at_most(healthy) else 0.0
