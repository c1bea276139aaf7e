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


class SecretProblem(NamedTuple):
    """Why a Secret gives no value. The message names the Secret and says what to do."""

    message: str
    reason: Reason = Reason.SECRET_NOT_FOUND


@dataclass(frozen=True, slots=True)
class Problems:
    """What the operator itself found, in sentences; empty if there is nothing."""

    spec: str = ""
    queue_secret: SecretProblem | None = None
    redis_secret: SecretProblem | None = None
    discovery: str = ""
    queue_note: str = ""
    redis_note: str = ""
    """Notes on Secrets that are gone, and whose values are still in use."""
    failure: str = ""
    """Why the object could not be reconciled."""
    warnings: tuple[str, ...] = ()
    """What the spec says that does something other than one may expect."""
    suspended: bool = False
    """The object asks for suspension, also if the rest of its spec is invalid."""

    @property
    def secret(self) -> SecretProblem | None:
        return self.queue_secret or self.redis_secret

    @property
    def given(self) -> str:
        """What is wrong with what the object's author gave, in one sentence; empty if nothing is."""
        return self.spec or (self.secret.message if self.secret is not None else "")

    @property
    def texts(self) -> list[str]:
        """All but discovery's, which is about executors."""
        secrets = [problem.message for problem in (self.queue_secret, self.redis_secret) if problem is not None]
        notes = (self.queue_note, self.redis_note, *self.warnings)
        return [text for text in (self.failure, self.spec, *secrets, *notes) if text]


class ConditionState(NamedTuple):
    """A condition without its history."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str


def condition_states(snapshot: Snapshot | None, problems: Problems) -> list[ConditionState]:
    """The present state of every condition type. `snapshot` is None while there is no router."""
    queue, events, journal = (snapshot.queue, snapshot.events, snapshot.journal) if snapshot else (None, None, None)
    key, redis_url = (problems.queue_secret, problems.queue_note), (problems.redis_secret, problems.redis_note)
    return [
        ConditionState(ConditionType.READY, *_ready(snapshot, problems)),
        ConditionState(ConditionType.EXECUTORS_AVAILABLE, *_executors(snapshot, problems)),
        ConditionState(ConditionType.QUEUE_REACHABLE, *_link(queue, *key)),
        ConditionState(ConditionType.EVENTS_PUBLISHED, *_link(events, *redis_url)),
        ConditionState(ConditionType.JOURNAL_WRITABLE, *_link(journal, *redis_url)),
    ]


def conditions(
    states: Iterable[ConditionState], previous: Iterable[Condition], generation: int, applied: int, now: datetime
) -> tuple[Condition, ...]:
    """The states with their times: a condition whose status has not changed keeps its transition time.

    Ready is about the object's spec of that generation, the others are about the generation that is applied.
    """
    known = {condition.type: condition for condition in previous}
    return tuple(
        _condition(state, known.get(state.type), generation if state.type is ConditionType.READY else applied, now)
        for state in states
    )


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
    """Suspension wins over everything that is wrong; what is wrong with the object over what is wrong around it."""
    if problems.suspended and (snapshot is None or snapshot.intent is Intent.SUSPEND):
        status, reason, text = _suspended(snapshot)
        return status, reason, "; ".join([text, *problems.texts])
    if problems.failure:
        return "False", Reason.RECONCILE_FAILED, problems.failure
    if problems.spec:
        return "False", Reason.INVALID_SPEC, problems.spec
    if problems.secret is not None:
        return "False", problems.secret.reason, problems.secret.message
    status, reason, text = _routing(snapshot, problems)
    return status, reason, "; ".join([text, *problems.texts])


def _suspended(snapshot: Snapshot | None) -> _State:
    if snapshot is not None and snapshot.phase is Phase.DRAINING:
        return _draining(snapshot)
    return "True", Reason.SUSPENDED, "suspended by spec.suspend; no tasks are pulled"


def _draining(snapshot: Snapshot) -> _State:
    return "False", Reason.DRAINING, f"finishing {snapshot.in_flight} tasks; no new tasks are pulled"


def _routing(snapshot: Snapshot | None, problems: Problems) -> _State:
    if snapshot is None or snapshot.phase is Phase.STARTING:
        return "False", Reason.STARTING, "the router is starting"
    if _unchecked(snapshot):
        return "False", Reason.STARTING, "waiting for the first health check of the executors"
    if snapshot.phase is Phase.DRAINING:
        return _draining(snapshot)
    match snapshot.intent:
        case Intent.SUSPEND:
            return _suspended(snapshot)
        case Intent.STANDBY:
            return "True", Reason.STANDBY, "all traffic goes to Celery (celeryPercent 100); no tasks are pulled"
    if snapshot.queue.is_down:
        return "False", Reason.QUEUE_UNREACHABLE, snapshot.queue.message
    if snapshot.stalled:
        return "False", Reason.STALLED, snapshot.stalled
    if snapshot.down:
        return "False", Reason.NO_EXECUTORS, problems.discovery or _unhealthy(snapshot)
    text = f"routing to {snapshot.healthy} of {snapshot.desired} executors"
    return "True", Reason.ROUTING, f"{text}; nothing is pulled now: {snapshot.hold}" if snapshot.hold else text


def _executors(snapshot: Snapshot | None, problems: Problems) -> _State:
    if problems.discovery:
        return "False", Reason.DISCOVERY_FAILED, problems.discovery
    if snapshot is None or snapshot.phase is Phase.STARTING:
        return "Unknown", Reason.UNKNOWN, "the router has not started yet"
    if _unchecked(snapshot):
        return "Unknown", Reason.UNKNOWN, "no executor has answered a health check yet"
    if snapshot.down:
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
        return "there are no executors that may get tasks: see spec.executors (count, endpoints, service, drained)"
    text = "; ".join(f"{e.name}: {e.reason}" for e in unhealthy[:NAMED_EXECUTORS])
    more = len(unhealthy) - NAMED_EXECUTORS
    return f"{text}; and {more} more" if more > 0 else text


def _link(link: Link | None, secret: SecretProblem | None, note: str) -> _State:
    if secret is not None:
        if link is not None and link.ok:  # by what was there before
            return "True", Reason.CONNECTED, secret.message
        return "False", secret.reason, secret.message
    if link is None or link.reason is LinkReason.UNKNOWN:
        return "Unknown", Reason.UNKNOWN, note or "not tried yet"
    return "True" if link.ok else "False", Reason(link.reason.value), "; ".join(t for t in (link.message, note) if t)
