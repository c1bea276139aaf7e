"""The executors of one QueueWorker as a person looks at them, worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.cli.plugin.times import time_of
from queueworker.cli.plugin.values import Body, ExecutorView, Level

if TYPE_CHECKING:
    from datetime import datetime

_ORDER = list(Level)


def executors_of(
    worker: Body | None, status: Body, drained: tuple[str, ...], now: datetime
) -> tuple[ExecutorView, ...]:
    """Of the operator's answer; without one, of the object's status. Drained ones are listed although they are gone."""
    if worker is None:
        rows = [_stored(e, drained, now) for e in (status.get("executors") or {}).get("endpoints") or []]
    else:
        rows = [_executor(e, drained, now) for e in worker.get("executors") or []]
    present = {row.name for row in rows}
    rows += [ExecutorView(name, "", Level.OFF, "drained") for name in drained if name not in present]
    return tuple(sorted(rows, key=lambda e: (_ORDER.index(e.level), _as_people_count(e.name))))


def _executor(e: Body, drained: tuple[str, ...], now: datetime) -> ExecutorView:
    level, state = _state(e, drained)
    checked = e.get("last_check_time")
    return ExecutorView(
        name=str(e.get("name")),
        url=str(e.get("url")),
        level=level,
        state=state,
        in_flight=int(e.get("in_flight") or 0),
        capacity=int(e.get("capacity") or 0),
        checked_seconds_ago=max(0.0, now.timestamp() - float(checked)) if checked is not None else None,
        last_failure=str(e.get("reason") or ""),
    )


def _stored(e: Body, drained: tuple[str, ...], now: datetime) -> ExecutorView:
    checked = time_of(e.get("lastCheckTime"))
    fields = {"in_flight": e.get("inFlight"), "last_check_time": checked.timestamp() if checked else None}
    return _executor(e | fields, drained, now)


def _state(e: Body, drained: tuple[str, ...]) -> tuple[Level, str]:
    if e.get("leaving"):
        return Level.OFF, "draining" if e.get("name") in drained else "leaving"
    if e.get("last_check_time") is None and not e.get("healthy"):
        return Level.OFF, "unchecked"
    if e.get("ejected"):
        return Level.ERROR, "ejected"
    if not e.get("healthy"):
        return Level.ERROR, "unhealthy"
    if e.get("warming"):
        return Level.WARNING, "warming"
    return Level.OK, "healthy"


def _as_people_count(name: str) -> tuple[str, int]:
    """executor-2 before executor-10."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1)
