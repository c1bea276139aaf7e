"""The router's counters and histograms, each with the name and help text of its metric.

The metrics, the object's status and the HTTP API take their descriptions from here.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

from queueworker.resource.status import TasksStatus, description_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
)  # fmt: skip


class Histogram:
    """Counts per bucket of `BUCKETS_SECONDS`, then for +Inf, and the sum in seconds. An observation takes 0.3 µs."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.sum += seconds


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Seconds below which that share of the observations lies, interpolated within a bucket as Prometheus does.

    `counts` is as in `Histogram`. None without observations; above the last bound it is that bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    for index, reached in enumerate(accumulate(counts)):
        if index == len(BUCKETS_SECONDS):
            break
        if counts[index] and reached >= wanted:
            low, high = BUCKETS_SECONDS[index - 1] if index else 0.0, BUCKETS_SECONDS[index]
            return low + (high - low) * (1 - (reached - wanted) / counts[index])
    return float(BUCKETS_SECONDS[-1])


class Metric(NamedTuple):
    """The metric that shows a field of `Counters`; `name` lacks prefix and suffix."""

    name: str
    text: str
    label: str = ""
    """Name of the label that tells the fields of one metric apart, if it has several."""
    value: str = ""
    """Value of that label."""


class LossCause(StrEnum):
    """Why a poll may have cost a task: the queue pops before it answers. The values are a metric's label, and the ends
    of the names of its counters.
    """

    NO_ANSWER = "no_answer"
    NOT_THE_QUEUES = "not_the_queues"
    UNREADABLE = "unreadable"


_TASK_SECONDS = (
    "Seconds from the pull of a task until the queue acknowledged its report, with all attempts and waits, by outcome. "
    "The time that the task waited in the queue before is not known."
)
_POLLS = "Calls of GET /tasks/next by result: a task, no task (empty), or an error or no answer (failed)."
_PULLS_LOST = (
    "Polls that may have removed a task from the queue without bringing it here, by cause: no answer (no_answer), an "
    "answer of somebody else (not_the_queues), no task with a usable id (unreadable). No client can prevent this loss."
)


@dataclass(slots=True)
class Counters:
    """Monotonic counts since the router started. Plain integers, because the hot path adds to them.

    More than 15 attributes: one for each metric.
    """

    polls_empty: Annotated[int, Metric("queue_polls", _POLLS, "result", "empty")] = 0
    polls_failed: Annotated[int, Metric("queue_polls", _POLLS, "result", "failed")] = 0
    pulls_lost_no_answer: Annotated[int, Metric("pulls_lost", _PULLS_LOST, "cause", LossCause.NO_ANSWER)] = 0
    pulls_lost_not_the_queues: Annotated[int, Metric("pulls_lost", _PULLS_LOST, "cause", LossCause.NOT_THE_QUEUES)] = 0
    pulls_lost_unreadable: Annotated[int, Metric("pulls_lost", _PULLS_LOST, "cause", LossCause.UNREADABLE)] = 0
    pulled: Annotated[
        int,
        Metric("tasks_pulled", "Tasks that the queue handed out to this router."),
        Metric("queue_polls", _POLLS, "result", "task"),
    ] = 0
    duplicates: Annotated[
        int,
        Metric(
            "tasks_duplicates",
            "Tasks handed out while a task of the same eval_id was in flight. It is run once; its outcome is for both.",
        ),
    ] = 0
    invalid: Annotated[
        int, Metric("tasks_invalid", "Tasks that could not be routed: no eval_id, no code, or too large.")
    ] = 0
    completed: Annotated[int, Metric("tasks_completed", description_of(TasksStatus, "completed"))] = 0
    failed: Annotated[int, Metric("tasks_failed", description_of(TasksStatus, "failed"))] = 0
    retried: Annotated[int, Metric("tasks_retried", description_of(TasksStatus, "retried"))] = 0
    recovered: Annotated[int, Metric("tasks_recovered", description_of(TasksStatus, "recovered"))] = 0
    attempts_failed: Annotated[
        int,
        Metric(
            "routing_attempts_failed",
            "Attempts to execute a task that brought no result: refused, broken off, or no executor was healthy.",
        ),
    ] = 0
    ejections: Annotated[
        int,
        Metric(
            "executor_ejections", "Executors ejected temporarily, because they failed tasks by a fault of their own."
        ),
    ] = 0
    reports_unknown: Annotated[
        int,
        Metric(
            "reports_unknown",
            "Reports for an id that the queue did not know, because it had restarted or had the report already.",
        ),
    ] = 0
    events_published: Annotated[int, Metric("events_published", "Events that Redis accepted.")] = 0
    events_dropped: Annotated[
        int,
        Metric(
            "events_dropped",
            "Events dropped, oldest first, because the buffer or the memory budget was full while Redis was away, or "
            "because Redis took one in none of many tries.",
        ),
    ] = 0
    journal_errors: Annotated[
        int, Metric("journal_errors", "Failed writes to the journal, renewals of its lease included.")
    ] = 0
    overhead: Annotated[
        Histogram,
        Metric(
            "task_overhead_seconds",
            "Seconds from the answer to the pull until the queue acknowledged the report, without the executor's time.",
        ),
    ] = field(default_factory=Histogram)
    execution: Annotated[
        Histogram,
        Metric(
            "execution_seconds",
            "Seconds from sending a task to an executor until its result, which an asynchronous one publishes later.",
        ),
    ] = field(default_factory=Histogram)

    wait: Annotated[
        Histogram,
        Metric(
            "task_wait_seconds",
            "Seconds from the pull of a task until its first executor was chosen. A task that was taken over from a "
            "dead router counts from the takeover, and not at all if an executor had it before.",
        ),
    ] = field(default_factory=Histogram)
    completed_seconds: Annotated[Histogram, Metric("task_seconds", _TASK_SECONDS, "outcome", "completed")] = field(
        default_factory=Histogram
    )
    failed_seconds: Annotated[Histogram, Metric("task_seconds", _TASK_SECONDS, "outcome", "failed")] = field(
        default_factory=Histogram
    )

    def count_lost_pull(self, cause: LossCause) -> None:
        name = f"pulls_lost_{cause}"
        setattr(self, name, getattr(self, name) + 1)

    @property
    def pulls_lost(self) -> dict[LossCause, int]:
        return {cause: getattr(self, f"pulls_lost_{cause}") for cause in LossCause}

    @property
    def routed(self) -> int:
        return self.completed + self.failed


@cache
def metrics(kind: type[int | Histogram]) -> dict[str, tuple[Metric, ...]]:
    """The metrics of each field of `Counters` that has that type."""
    hints: dict[str, Any] = get_type_hints(Counters, include_extras=True)
    return {
        name: hint.__metadata__
        for name, hint in hints.items()
        if hasattr(hint, "__metadata__") and hint.__origin__ is kind
    }


def text_of(field_name: str) -> str:
    """The description of a counter."""
    return metrics(int)[field_name][0].text
