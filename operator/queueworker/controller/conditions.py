"""The conditions of an object: pure functions of its router's snapshot and of the operator's problems.

`Ready` is True when the router does what the spec asks for. Suspension and standby are asked for, so both are Ready;
the reason, shown in the Status column, tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from queueworker.redaction import without_credentials
from queueworker.resource.reasons import ConditionType, Reason
from queueworker.resource.status import MAX_MESSAGE, Condition, ConditionStatus
from queueworker.routing.config import Intent
from queueworker.routing.snapshot import LinkReason, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from queueworker.routing.snapshot import Link, Snapshot

NAMED_EXECUTORS = 3
"""A message names at most so many unhealthy executors."""


@dataclass(frozen=True, slots=True)
class Problems:
    """Problems that the operator itself found, each a sentence; empty if there is none."""

    spec: str = ""
    queue_secret: str = ""
    redis_secret: str = ""
    discovery: str = ""


class ConditionState(NamedTuple):
    """A condition without its history."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str


def condition_states(snapshot: Snapshot | None, problems: Problems) -> list[ConditionState]:
    """The present state of every condition type. `snapshot` is None while there is no router."""
    return [
        ConditionState(ConditionType.READY, *_ready(snapshot, problems)),
        ConditionState(ConditionType.EXECUTORS_AVAILABLE, *_executors(snapshot, problems)),
        ConditionState(
            ConditionType.QUEUE_REACHABLE, *_link(snapshot.queue if snapshot else None, problems.queue_secret)
        ),
        ConditionState(
            ConditionType.EVENTS_PUBLISHED, *_link(snapshot.events if snapshot else None, problems.redis_secret)
        ),
        ConditionState(
            ConditionType.JOURNAL_WRITABLE, *_link(snapshot.journal if snapshot else None, problems.redis_secret)
        ),
    ]


def conditions(
    states: Iterable[ConditionState], previous: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The states with their times: a condition whose status has not changed keeps its transition time."""
    known = {condition.type: condition for condition in previous}
    return tuple(_condition(state, known.get(state.type), generation, now) for state in states)


def _condition(state: ConditionState, old: Condition | None, generation: int, now: datetime) -> Condition:
    unchanged = old is not None and old.status == state.status
    return Condition(
        type=state.type,
        status=state.status,
        reason=state.reason,
        message=without_credentials(state.message)[:MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old is not None and unchanged else now,
    )


_State = tuple[ConditionStatus, Reason, str]


def _ready(snapshot: Snapshot | None, problems: Problems) -> _State:
    if problems.spec:
        return "False", Reason.INVALID_SPEC, problems.spec
    secret = problems.queue_secret or problems.redis_secret
    if secret:
        return "False", Reason.SECRET_NOT_FOUND, secret
    if snapshot is None or snapshot.phase is Phase.STARTING:
        return "False", Reason.STARTING, "the router is starting"
    if _unchecked(snapshot):
        return "False", Reason.STARTING, "waiting for the first health check of the executors"
    if snapshot.phase is Phase.DRAINING:
        return "False", Reason.DRAINING, f"finishing {snapshot.in_flight} tasks; no new tasks are pulled"
    match snapshot.intent:
        case Intent.SUSPEND:
            return "True", Reason.SUSPENDED, "suspended by spec.suspend; no tasks are pulled"
        case Intent.STANDBY:
            return "True", Reason.STANDBY, "all traffic goes to Celery (celeryPercent 100); no tasks are pulled"
    if snapshot.queue.reason not in {LinkReason.CONNECTED, LinkReason.UNKNOWN}:
        return "False", Reason.QUEUE_UNREACHABLE, snapshot.queue.message
    if snapshot.stalled:
        return "False", Reason.STALLED, snapshot.stalled
    if snapshot.healthy == 0:
        return "False", Reason.NO_EXECUTORS, problems.discovery or _unhealthy(snapshot)
    return "True", Reason.ROUTING, f"routing to {snapshot.healthy} of {snapshot.desired} executors"


def _executors(snapshot: Snapshot | None, problems: Problems) -> _State:
    if problems.discovery:
        return "False", Reason.DISCOVERY_FAILED, problems.discovery
    if snapshot is None or snapshot.phase is Phase.STARTING:
        return "Unknown", Reason.UNKNOWN, "the router has not started yet"
    if _unchecked(snapshot):
        return "Unknown", Reason.UNKNOWN, "no executor has answered a health check yet"
    if snapshot.healthy == 0:
        return "False", Reason.NONE_HEALTHY, _unhealthy(snapshot)
    if snapshot.healthy < snapshot.desired:
        return "True", Reason.SOME_UNHEALTHY, _unhealthy(snapshot)
    return "True", Reason.ALL_HEALTHY, ""


def _unchecked(snapshot: Snapshot) -> bool:
    """No executor of the pool has answered a health check yet."""
    return bool(snapshot.desired) and all(e.last_check is None for e in snapshot.executors)


def _unhealthy(snapshot: Snapshot) -> str:
    unhealthy = [e for e in snapshot.executors if not e.healthy and not e.leaving]
    if not unhealthy:
        return "there are no executors"
    text = "; ".join(f"{e.name}: {e.reason}" for e in unhealthy[:NAMED_EXECUTORS])
    more = len(unhealthy) - NAMED_EXECUTORS
    return f"{text}; and {more} more" if more > 0 else text


def _link(link: Link | None, secret: str) -> _State:
    if secret:
        return "False", Reason.SECRET_NOT_FOUND, secret
    if link is None or link.reason is LinkReason.UNKNOWN:
        return "Unknown", Reason.UNKNOWN, "not tried yet"
    return "True" if link.ok else "False", Reason(link.reason.value), link.message
