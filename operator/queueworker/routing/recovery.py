"""What a dead router left in its journal, turned into tasks in flight. Pure, but for the queues that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from queueworker.routing.in_flight import InFlightTask, count_death
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import Entry, State, UnreadableEntry
from queueworker.routing.journal.failed_tasks import NO_TASK
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.reading import InvalidAnswer
from queueworker.routing.wire.task import InvalidTask, Task, parse_task, trace_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.resource.spec import Recovery
    from queueworker.routing.journal.write_buffer import Unwritten
    from queueworker.routing.queue.client import QueueClient


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a router leaves to its successor on another Redis, or because Redis does not answer: entries by eval_id,
    events, failed-task records.
    """

    entries: dict[str, bytes] = field(default_factory=dict)
    unwritten: Unwritten | None = None
    disowned: tuple[str, ...] = ()
    """Instances that have left another Redis: whatever a journal of theirs holds has ended, or is in `entries`."""


def stub_task(eval_id: str, raw: bytes = NO_TASK) -> Task:
    """A task of which nothing but id and trace has to be known any more: its outcome is there."""
    return Task(eval_id, "", None, "", "", raw, trace_of(raw))


def revive(
    eval_id: str, raw: bytes, recovery: Recovery, queue_of: Callable[[str], QueueClient], now: float
) -> InFlightTask:
    """The task in flight that a journal's entry tells of. `now` is on the router's monotonic clock.

    Tasks are reported to the queue that they came from. What was executed is reported, never run again; what may have
    run is run again, or failed, as `recovery` says, and failed when its routers keep dying. Raises `UnreadableEntry`.
    """
    entry = entries.decode(raw)
    flight = InFlightTask(
        _task(eval_id, entry),
        queue_of(entry.queue_url),
        now,
        attempt=entry.attempt,
        executor=entry.executor,
        ambiguous=entry.ambiguous,
        deadline=entry.deadline,
        deaths=entry.deaths,
        may_have_entry=True,
        recovered=True,
        outcome=entry.outcome,
        event_id=entry.event_id,
    )
    if flight.outcome is None and entry.task == NO_TASK:
        flight.outcome = Outcome(completed=False, error="the router died, and a task as large as this one is not kept")
    if flight.outcome is None and _may_have_run(entry):
        flight.outcome = count_death(flight, recovery)
    return flight


def _may_have_run(entry: Entry) -> bool:
    """An asynchronous executor publishes the outcome, so its tasks are waited for first, however many routers die."""
    return entry.state is State.EXECUTING and entry.deadline is None


def _task(eval_id: str, entry: Entry) -> Task:
    if entry.outcome is not None or entry.task == NO_TASK:
        return stub_task(eval_id, entry.task)
    try:
        task = parse_task(entry.task)
    except (InvalidTask, InvalidAnswer) as error:
        raise UnreadableEntry(str(error)) from error
    if task is None or task.eval_id != eval_id:
        raise UnreadableEntry("it holds no task of that id")
    return task
