"""A task in flight: a task and how far it has come, from its pull to its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from queueworker.resource.spec import Recovery
from queueworker.routing.journal import entries
from queueworker.routing.journal.failed_tasks import NO_TASK, FailedTask
from queueworker.routing.wire.outcome import Outcome

if TYPE_CHECKING:
    import asyncio

    from queueworker.routing.journal.entries import State
    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.limits import Limits
    from queueworker.routing.queue.client import QueueClient
    from queueworker.routing.tracer import TaskSpan
    from queueworker.routing.wire.task import Task

MAX_DEATHS = 3
"""A task during which its router dies each time may be the cause: it is not run again after so many."""


@dataclass(slots=True, eq=False)
class InFlightTask:
    """A task that the queue handed to us and that is not reported yet.

    More than 15 attributes: it is all that is known of a task, in one object that the hot path allocates once.
    """

    task: Task
    queue: QueueClient
    """The queue that waits for the report."""
    pulled_at: float
    """Seconds on the router's monotonic clock."""
    attempt: int = 1
    executor: str = ""
    """The name of the executor that was asked last; empty while none was."""
    failed_at: tuple[str, ...] = ()
    """The names of executors that failed it by a fault of their own: the next attempt is made elsewhere."""
    ambiguous: bool = False
    """An executor was asked and did not say how it ended: it may have run the task to its end."""
    deadline: float | None = None
    """Unix time in seconds. An asynchronous executor has the task, and may publish the outcome until then."""
    deaths: int = 0
    """Routers that died while an executor ran the task, without an outcome from it."""
    recovered: bool = False
    """It comes from the journal of a router that died."""
    outcome: Outcome | None = None
    """Set once it is known how the task ended."""
    event_id: str = ""
    """The id of the event of its outcome, where the format of events has one."""
    redelivered: bool = False
    """The queue has handed out the id once more since its report was sent."""
    may_have_entry: bool = False
    """The journal may hold an entry of it: the next state must be durable before an executor is called."""
    lost: bool = False
    """Another router has taken the task over: nothing more may be done for it here."""
    executor_seconds: float = 0.0
    """Time that executors and the backoffs between attempts used. The rest is the router's overhead."""
    run: asyncio.Task[None] | None = None
    span: TaskSpan | None = None
    """None while tracing is off."""

    @property
    def eval_id(self) -> str:
        return self.task.eval_id


def count_death(flight: InFlightTask, recovery: Recovery) -> Outcome | None:
    """The router died while an executor had the task, and nobody knows what came of it. None: it may run again."""
    flight.deaths += 1
    if flight.deaths >= MAX_DEATHS:
        return Outcome(completed=False, error=f"its router died {flight.deaths} times while it ran")
    if recovery is Recovery.FAIL:
        return Outcome(completed=False, error=f"the router died while executor {flight.executor} ran the task")
    return None


def record_state(flight: InFlightTask, journal: Journal, state: State, executor: str = "") -> None:
    """Put the task's entry into the journal, as `pulled` or `executing` on that executor.

    Nothing is put of a task that is lost: nobody would remove the entry, and a successor would act on it.
    """
    if flight.lost:
        return
    flight.executor = executor or flight.executor
    entry = entries.encode_task(
        state,
        flight.queue.url,
        flight.task.raw,
        flight.attempt,
        executor,
        ambiguous=flight.ambiguous,
        deadline=flight.deadline,
        deaths=flight.deaths,
    )
    journal.put(flight.task.eval_id, entry)


def record_outcome(flight: InFlightTask, journal: Journal, outcome: Outcome) -> None:
    """Put the task's entry into the journal, as `executed` with its outcome; nothing of a task that is lost."""
    if flight.lost:
        return
    entry = entries.encode_outcome(
        flight.queue.url,
        outcome,
        flight.task.raw,
        flight.attempt,
        flight.executor,
        ambiguous=flight.ambiguous,
        event_id=flight.event_id,
    )
    journal.put(flight.task.eval_id, entry)


def failed_task(flight: InFlightTask, error: str, now: float, limits: Limits) -> FailedTask:
    """The record of a task that was reported as failed with that error. `now` is Unix time in seconds.

    A task whose result the queue refused has run, too: sending it again is ambiguous.
    """
    raw = flight.task.raw
    size = 0 if raw == NO_TASK else len(raw)
    most = limits.max_error_chars
    return FailedTask(
        eval_id=flight.eval_id,
        error=error if len(error) <= most else error[:most] + "…",
        attempts=flight.attempt,
        executor=flight.executor,
        failed_at=round(now, 3),
        queue_url=flight.queue.url,
        ambiguous=flight.ambiguous or (flight.outcome is not None and flight.outcome.completed),
        task_bytes=size,
        task=raw if size <= limits.max_failed_task_body_bytes else NO_TASK,
    )
