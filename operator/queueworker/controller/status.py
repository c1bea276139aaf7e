"""The object's status, from what its router shows. Pure: values in, a dict out as the API server wants it.

`Ready` says whether the router does what the spec asks for. Suspended and standby are asked for, so they
are ready; the reason, which is the Status column, tells which it is (as KEDA does for a paused object).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueworker.resource.names import LABEL_QUEUEWORKER
from queueworker.resource.reasons import ConditionType, Reason
from queueworker.resource.status import MAX_ENDPOINTS, MAX_MESSAGE
from queueworker.routing.config import Intent
from queueworker.routing.counters import Counters
from queueworker.routing.snapshot import LinkReason, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.resource.spec import MigrationSpec, QueueWorkerSpec
    from queueworker.routing.snapshot import ExecutorSnapshot, Link, Snapshot

_COUNTED = ("completed", "failed", "retried", "recovered")


@dataclass(frozen=True, slots=True)
class Problems:
    """What the operator itself found in the way; each is a sentence, empty when there is none."""

    spec: str = ""
    queue_secret: str = ""
    redis_secret: str = ""
    discovery: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the routers before this one, which status goes on from."""

    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_status(cls, status: Mapping[str, Any]) -> Totals:
        tasks = status.get("tasks") or {}
        return cls({name: int(tasks.get(name) or 0) for name in _COUNTED})

    def plus(self, counters: Counters) -> Totals:
        return Totals({name: self.counts.get(name, 0) + getattr(counters, name) for name in _COUNTED})


Finding = tuple[ConditionType, str, Reason, str]
"""Condition type, status, reason, message."""


def findings(snapshot: Snapshot | None, problems: Problems) -> list[Finding]:
    """What holds now, one for each condition type."""
    return [
        _ready(snapshot, problems),
        _executors(snapshot, problems),
        _link(ConditionType.QUEUE_REACHABLE, snapshot.queue if snapshot else None, problems.queue_secret),
        _link(ConditionType.EVENTS_PUBLISHED, snapshot.events if snapshot else None, problems.redis_secret),
        _link(ConditionType.JOURNAL_WRITABLE, snapshot.journal if snapshot else None, problems.redis_secret),
    ]


def _ready(snapshot: Snapshot | None, problems: Problems) -> Finding:
    kind = ConditionType.READY
    if problems.spec:
        return kind, "False", Reason.INVALID_SPEC, problems.spec
    secret = problems.queue_secret or problems.redis_secret
    if secret:
        return kind, "False", Reason.SECRET_NOT_FOUND, secret
    if snapshot is None or snapshot.phase is Phase.STARTING:
        return kind, "False", Reason.STARTING, "the router is starting"
    if snapshot.desired and all(e.last_check is None for e in snapshot.executors):
        return kind, "False", Reason.STARTING, "the executors are being asked for their health"
    if snapshot.phase is Phase.DRAINING:
        return kind, "False", Reason.DRAINING, f"{snapshot.in_flight} tasks are being finished; nothing new is pulled"
    match snapshot.intent:
        case Intent.SUSPEND:
            return kind, "True", Reason.SUSPENDED, "suspended, as spec.suspend asks: nothing is pulled"
        case Intent.STANDBY:
            return kind, "True", Reason.STANDBY, "all traffic goes to Celery (celeryPercent 100): nothing is pulled"
    if snapshot.queue.reason not in {LinkReason.CONNECTED, LinkReason.UNKNOWN}:
        return kind, "False", Reason.QUEUE_UNREACHABLE, snapshot.queue.message
    if snapshot.healthy == 0:
        return kind, "False", Reason.NO_EXECUTORS, problems.discovery or _sick(snapshot) or "there are no executors"
    return kind, "True", Reason.ROUTING, f"routing to {snapshot.healthy} of {snapshot.desired} executors"


def _executors(snapshot: Snapshot | None, problems: Problems) -> Finding:
    kind = ConditionType.EXECUTORS_AVAILABLE
    if problems.discovery:
        return kind, "False", Reason.DISCOVERY_FAILED, problems.discovery
    if snapshot is None or snapshot.phase is Phase.STARTING:
        return kind, "Unknown", Reason.UNKNOWN, "the router is not running yet"
    if snapshot.desired and all(e.last_check is None for e in snapshot.executors):
        return kind, "Unknown", Reason.UNKNOWN, "no executor has been asked for its health yet"
    if snapshot.healthy == 0:
        return kind, "False", Reason.NONE_HEALTHY, _sick(snapshot) or "there are no executors"
    if snapshot.healthy < snapshot.desired:
        return kind, "True", Reason.SOME_UNHEALTHY, _sick(snapshot)
    return kind, "True", Reason.ALL_HEALTHY, ""


def _sick(snapshot: Snapshot) -> str:
    sick = [e for e in snapshot.executors if not e.healthy and not e.leaving]
    text = "; ".join(f"{e.name}: {e.reason}" for e in sick[:3])
    return text + (f"; and {len(sick) - 3} more" if len(sick) > 3 else "")


def _link(kind: ConditionType, link: Link | None, secret: str) -> Finding:
    if secret:
        return kind, "False", Reason.SECRET_NOT_FOUND, secret
    if link is None or link.reason is LinkReason.UNKNOWN:
        return kind, "Unknown", Reason.UNKNOWN, "not tried yet"
    return kind, "True" if link.ok else "False", Reason(link.reason.value), link.message


def build(
    spec: QueueWorkerSpec | None,
    snapshot: Snapshot | None,
    problems: Problems,
    *,
    previous: Mapping[str, Any],
    totals: Totals,
    generation: int,
    name: str,
    now: datetime,
) -> dict[str, Any]:
    """The whole status. `previous` is the last one: a condition whose status is unchanged keeps its time."""
    known = {c["type"]: c for c in previous.get("conditions") or ()}
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": [_condition(finding, known, generation, now) for finding in findings(snapshot, problems)],
        "selector": f"{LABEL_QUEUEWORKER}={name}",
    }
    if spec is not None:
        status["migration"] = migration(spec.migration, previous, now)
    if snapshot is not None:
        status["executors"] = {
            "desired": snapshot.desired,
            "healthy": snapshot.healthy,
            "summary": f"{snapshot.healthy}/{snapshot.desired}",
            "endpoints": [_endpoint(e) for e in snapshot.executors[:MAX_ENDPOINTS]],
        }
        counts = totals.plus(snapshot.counters).counts
        status["tasks"] = {
            **counts,
            "routed": counts["completed"] + counts["failed"],
            "inFlight": snapshot.in_flight,
            "perMinute": snapshot.per_minute,
        }
        status["queue"] = {
            "depth": snapshot.queue_depth,
            "consecutiveErrors": snapshot.consecutive_errors,
            "lastTaskTime": _time(snapshot.last_task_time) or (previous.get("queue") or {}).get("lastTaskTime"),
        }
    return status


def migration(spec: MigrationSpec, previous: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Split up to half, then reduction, then standby; forced, the legacy queue has all the traffic it is given."""
    if spec.celery_percent >= 100 and not spec.force_legacy_queue:
        since = (previous.get("migration") or {}).get("standbySince") or rfc3339(now)
        return {"phase": "Standby", "standbySince": since}
    return {"phase": "Split" if spec.celery_percent <= 50 else "Reduction", "standbySince": None}


def transition(status: Mapping[str, Any]) -> object:
    """What is written at once when it changes; the rest waits for the beat."""
    executors = status.get("executors") or {}
    return (
        status.get("observedGeneration"),
        [(c["type"], c["status"], c["reason"]) for c in status.get("conditions") or ()],
        (status.get("migration") or {}).get("phase"),
        executors.get("summary"),
        [(e["name"], e["url"], e["healthy"]) for e in executors.get("endpoints") or ()],
    )


def news(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The Events of a change of status: (type, reason, message), one for each condition whose reason changed."""
    known = {c["type"]: c for c in before.get("conditions") or ()}
    events = []
    for condition in after["conditions"]:
        old = known.get(condition["type"])
        if condition["status"] == "Unknown" or condition["reason"] == Reason.STARTING:
            continue
        if old is not None and (old["status"], old["reason"]) == (condition["status"], condition["reason"]):
            continue
        good = condition["status"] == "True" and condition["reason"] != Reason.SOME_UNHEALTHY
        if good and condition["type"] != ConditionType.READY and (old is None or old["status"] == "Unknown"):
            continue  # that all is well from the start is told once, by Ready
        message = condition["message"] or f"{condition['type']} is {condition['status']}"
        reason = (
            condition["reason"]
            if condition["type"] == ConditionType.READY
            else (f"{condition['type']}{'' if good else condition['reason']}")
        )
        expected = good or condition["reason"] == Reason.DRAINING
        events.append(("Normal" if expected else "Warning", str(reason), message))
    return events


def _condition(finding: Finding, known: Mapping[str, Any], generation: int, now: datetime) -> dict[str, Any]:
    kind, status, reason, message = finding
    old = known.get(kind)
    since = old["lastTransitionTime"] if old is not None and old["status"] == status else rfc3339(now)
    return {
        "type": str(kind),
        "status": status,
        "reason": str(reason),
        "message": message[:MAX_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }


def _endpoint(executor: ExecutorSnapshot) -> dict[str, Any]:
    return {
        "name": executor.name,
        "url": executor.url,
        "healthy": executor.healthy,
        "inFlight": executor.in_flight,
        "capacity": executor.capacity,
        "lastCheckTime": _time(executor.last_check),
        "reason": executor.reason[:MAX_MESSAGE],
    }


def _time(unix: float | None) -> str | None:
    return None if unix is None else rfc3339(datetime.fromtimestamp(unix, UTC))


def rfc3339(moment: datetime) -> str:
    """As Kubernetes writes times: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
