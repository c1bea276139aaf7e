"""What the page shows: all objects in few bytes, and one object in depth. Pure functions of a source's views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, TypeAdapter

from queueworker.routing.history import POINT_SECONDS, POINTS, Series
from queueworker.routing.snapshot import ExecutorState, Link, TaskFailure, Transition
from queueworker.web import views
from queueworker.web.models import RouterStatus
from queueworker.web.options import Failures
from queueworker.web.source import ConditionView, EventView, MigrationView
from queueworker.web.state import Level, advice, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.routing.history import History
    from queueworker.routing.snapshot import ExecutorSnapshot
    from queueworker.web.source import ObjectView

LIST_POINTS = 60
"""Points of a sparkline: five minutes."""
MAX_ERROR_BYTES = 4096
"""Of an error that the HTTP API shows."""

FIELDS = (
    "name", "level", "reason", "why", "tasks_per_minute", "failed_per_minute", "p50_seconds", "p95_seconds", "queued",
    "in_use", "capacity", "executors", "links", "migration", "points", "point_rate",
)  # fmt: skip
_LETTERS = {
    ExecutorState.HEALTHY: "h",
    ExecutorState.WARMING_UP: "w",
    ExecutorState.SILENT: "s",
    ExecutorState.EJECTED: "e",
    ExecutorState.UNHEALTHY: "u",
    ExecutorState.UNCHECKED: "c",
    ExecutorState.LEAVING: "l",
}


# --- the list


def row(view: ObjectView) -> list[Any]:
    """The values of `FIELDS`. `executors` has a letter and slots in use / slots for each; `links` a sign for each of
    queue, events and journal: + connected, - down, ? not known.
    """
    state, snapshot, migration = state_of(view), view.snapshot, view.migration
    about = [view.group, state.level, state.reason, state.why]
    moved = f"{migration.phase} {migration.celery_percent} %" if migration is not None else ""
    if snapshot is None:
        return [*about, 0, 0, None, None, None, 0, 0, "", "???", moved, 0, None]
    history, pool = snapshot.history, snapshot.executors
    return [
        *about,
        snapshot.per_minute,
        history.failed_per_minute,
        views.rounded(history.p50_seconds),
        views.rounded(history.p95_seconds),
        snapshot.queue_depth,
        *_usage(pool),
        " ".join(f"{_LETTERS[e.state]}{e.in_flight}/{e.capacity}" for e in pool),
        "".join(map(_sign, (snapshot.queue, snapshot.events, snapshot.journal))),
        moved,
        history.points,
        next(iter(_rates(history, 1)), None),
    ]


def _usage(executors: Sequence[ExecutorSnapshot]) -> tuple[int, int]:
    """Slots in use, and slots of the healthy executors."""
    return sum(e.in_flight for e in executors), sum(e.capacity for e in executors if e.healthy and not e.leaving)


def _sign(link: Link) -> str:
    return "+" if link.ok else "-" if link.is_down else "?"


def sparkline(view: ObjectView) -> list[list[float | None]]:
    """The newest points: tasks a minute, and p95 in seconds."""
    if view.snapshot is None:
        return [[], []]
    history = view.snapshot.history
    return [_rates(history, LIST_POINTS), history.newest(Series.P95, LIST_POINTS)]


def _rates(history: History, most: int) -> list[float | None]:
    """Tasks a minute, completed or failed."""
    pairs = zip(history.newest(Series.COMPLETED, most), history.newest(Series.FAILED, most), strict=True)
    return [None if done is None else round(done + (failed or 0)) for done, failed in pairs]


# --- one object


class Problem(BaseModel):
    """A condition that is not well."""

    condition: ConditionView
    advice: str = Field(description="What to do, in a sentence; empty if the message says it.")


class StateModel(BaseModel):
    level: Level = Field(description="error, warning, ok, or off (told to do nothing).")
    reason: str = Field(description="The reason of Ready, or Degraded.")
    why: str = Field(description="Why it is so; empty if all is well.")


class HistoryModel(BaseModel):
    """Points of the last ten minutes, the oldest first; null is a gap."""

    point_seconds: float = Field(POINT_SECONDS, description="Seconds between two points.")
    points: int = Field(description="Points taken since the router started.")
    series: dict[Series, list[float | None]] = Field(description=f"The newest points of each series, at most {POINTS}.")


class ObjectDetail(BaseModel):
    """One QueueWorker in depth."""

    time: float = Field(0, description="Unix time in seconds at which this was true.")
    name: str = Field(description="`namespace/name` of the object; for a worker, the group of its journal.")
    boot: str = Field(description="Changes when the process starts anew: counters begin again.")
    state: StateModel
    problems: list[Problem] = Field(description="What is wrong, and what to do.")
    conditions: list[ConditionView] = Field(description="All conditions, as in the object's status.")
    migration: MigrationView | None = Field(description="Null while no valid spec was seen.")
    router: RouterStatus | None = Field(description="As /status shows it; null while there is no router.")
    history: HistoryModel | None = Field(description="Null while there is no router.")
    failures_shown: Failures = Field(description="What is shown of failed tasks: WEB_FAILURES.")
    actions: bool = Field(description="True if failed tasks can be sent again: WEB_ALLOW_ACTIONS.")
    failures: list[TaskFailure] = Field(description="The newest failed tasks, the newest first.")
    transitions: list[Transition] = Field(description="Changes of connections and executors, the newest first.")
    events: list[EventView] = Field(description="Changes of Ready, the newest first.")


_DETAIL = TypeAdapter(ObjectDetail)


def detail(view: ObjectView, boot: str, failures: Failures, *, actions: bool = False) -> dict[str, Any]:
    """An `ObjectDetail` as JSON without its time."""
    snapshot = view.snapshot
    made = ObjectDetail(
        name=view.group,
        boot=boot,
        state=StateModel(**state_of(view)._asdict()),
        problems=[Problem(condition=c, advice=text) for c, text in advice(view)],
        conditions=list(view.conditions),
        migration=view.migration,
        router=views.router_status(snapshot) if snapshot is not None else None,
        history=_history(view),
        failures_shown=failures,
        actions=actions,
        failures=shown_failures(snapshot.failures, failures) if snapshot is not None else [],
        transitions=list(snapshot.transitions) if snapshot is not None else [],
        events=list(view.events),
    )
    return _DETAIL.dump_python(made, mode="json", by_alias=True, exclude={"time"})  # type: ignore[no-any-return]


def shown_failures(found: Sequence[TaskFailure], failures: Failures) -> list[TaskFailure]:
    """As much of them as may be shown to everybody."""
    if failures is Failures.OFF:
        return []
    whole = failures is Failures.FULL
    return [
        TaskFailure(f.eval_id, f.time, cut(f.error) if whole else "", f.executor, f.attempts, f.ambiguous)
        for f in found
    ]


def cut(error: str) -> str:
    """At most `MAX_ERROR_BYTES`."""
    data = error.encode("utf-8", "replace")
    return error if len(data) <= MAX_ERROR_BYTES else data[:MAX_ERROR_BYTES].decode("utf-8", "ignore") + "…"


def _history(view: ObjectView) -> HistoryModel | None:
    if view.snapshot is None:
        return None
    history = view.snapshot.history
    return HistoryModel(points=history.points, series={series: history.newest(series) for series in Series})
