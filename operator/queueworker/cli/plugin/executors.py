"""The executors of one QueueWorker as a person looks at them, worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.cli.plugin.times import seconds, time_of
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
        last_failure=_last_failure(e, now),
    )


def _stored(e: Body, drained: tuple[str, ...], now: datetime) -> ExecutorView:
    checked = time_of(e.get("lastCheckTime"))
    fields = {"in_flight": e.get("inFlight"), "last_check_time": checked.timestamp() if checked else None}
    return _executor(e | fields, drained, now)


_STATES = {
    "Healthy": (Level.OK, "healthy"),
    "WarmingUp": (Level.WARNING, "warming"),
    "Silent": (Level.WARNING, "silent"),
    "Ejected": (Level.ERROR, "ejected"),
    "Unhealthy": (Level.ERROR, "unhealthy"),
    "Unchecked": (Level.OFF, "unchecked"),
    "Leaving": (Level.OFF, "leaving"),
}


def _state(e: Body, drained: tuple[str, ...]) -> tuple[Level, str]:
    """The operator's word for it. The object's status, and operators before 0.2, know only whether it is healthy."""
    if e.get("leaving"):
        return Level.OFF, "draining" if e.get("name") in drained else "leaving"
    if (known := _STATES.get(str(e.get("state")))) is not None:
        return known
    if e.get("healthy"):
        return Level.OK, "healthy"
    return (Level.OFF, "unchecked") if e.get("last_check_time") is None else (Level.ERROR, "unhealthy")


def _last_failure(e: Body, now: datetime) -> str:
    """Why it is unhealthy, else what failed last; and when an ejected one comes back."""
    failures = e.get("failures") or []
    found = str(e.get("reason") or "")
    if not found and failures:
        found = f"{failures[0].get('reason')} ({seconds(now.timestamp() - float(failures[0].get('time') or 0))} ago)"
    if until := e.get("ejected_until"):
        found += f"; back in {seconds(max(0.0, float(until) - now.timestamp()))}"
    return found.removeprefix("; ")


def _as_people_count(name: str) -> tuple[str, int]:
    """executor-2 before executor-10."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1)
