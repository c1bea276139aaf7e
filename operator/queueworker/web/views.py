"""Pure functions from snapshots to the answers of the HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

from queueworker.routing.config import Intent
from queueworker.routing.snapshot import Link, LinkReason, Phase, Snapshot
from queueworker.web.models import (
    Health,
    LegacyExecutors,
    LegacyHealth,
    LegacyStatus,
    LinkStatus,
    OperatorHealth,
    OperatorHealthDetails,
    RouterEvents,
    RouterQueue,
    RouterStatus,
    RouterTasks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def health(snapshot: Snapshot) -> Health:
    """STARTING until an executor has answered its first health check: before that, no health is known."""
    pool = [e for e in snapshot.executors if not e.leaving]
    unknown = bool(pool) and all(e.last_check is None for e in pool)
    if snapshot.phase is Phase.STARTING or (unknown and snapshot.phase is not Phase.STOPPED):
        return Health.STARTING
    return _settled(snapshot)


def _settled(snapshot: Snapshot) -> Literal[Health.HEALTHY, Health.DEGRADED]:
    return Health.HEALTHY if snapshot.healthy else Health.DEGRADED


def legacy_status(snapshot: Snapshot) -> LegacyStatus:
    pool = [e for e in snapshot.executors if not e.leaving]
    return LegacyStatus(
        worker_id=snapshot.worker_id,
        status=_settled(snapshot),
        tasks_routed=snapshot.counters.routed,
        executors=LegacyExecutors(
            total=snapshot.desired, healthy=snapshot.healthy, health={e.url: e.healthy for e in pool}
        ),
    )


def legacy_health(snapshot: Snapshot) -> LegacyHealth:
    return LegacyHealth(status=health(snapshot), details=legacy_status(snapshot))


def operator_health(snapshots: Sequence[Snapshot], *, ready: bool, message: str) -> OperatorHealth:
    """STARTING if the operator is not ready (it starts, stands by or ends). HEALTHY without any QueueWorker."""
    states = [health(s) for s in snapshots if s.intent is Intent.ROUTE]
    settled = Health.DEGRADED if Health.DEGRADED in states else Health.HEALTHY
    details = OperatorHealthDetails(
        queue_workers=len(snapshots), healthy=sum(s.healthy > 0 for s in snapshots), message=message
    )
    return OperatorHealth(status=settled if ready else Health.STARTING, details=details)


def router_status(snapshot: Snapshot) -> RouterStatus:
    counters = snapshot.counters
    return RouterStatus(
        name=snapshot.group,
        worker_id=snapshot.worker_id,
        status=health(snapshot),
        intent=snapshot.intent,
        phase=snapshot.phase,
        queue=RouterQueue(
            **_link(snapshot.queue),
            url=snapshot.queue_url,
            depth=snapshot.queue_depth,
            consecutive_errors=snapshot.consecutive_errors,
            pulls_lost=counters.pulls_lost,
            last_task_time=snapshot.last_task_time,
        ),
        executors=list(snapshot.executors),
        tasks=RouterTasks(
            pulled=counters.pulled,
            routed=counters.routed,
            completed=counters.completed,
            failed=counters.failed,
            retried=counters.retried,
            recovered=counters.recovered,
            in_flight=snapshot.in_flight,
            per_minute=snapshot.per_minute,
            failed_per_minute=snapshot.history.failed_per_minute,
            p50_seconds=rounded(snapshot.history.p50_seconds),
            p95_seconds=rounded(snapshot.history.p95_seconds),
            pipeline=snapshot.pipeline,
        ),
        events=RouterEvents(
            **_link(snapshot.events),
            published=counters.events_published,
            dropped=counters.events_dropped,
            buffered=snapshot.events_buffered,
        ),
        journal=LinkStatus(**_link(snapshot.journal)),
    )


def rounded(seconds: float | None) -> float | None:
    """To tenths of a millisecond: buckets of a histogram tell no more."""
    return None if seconds is None else round(seconds, 4)


class _LinkFields(TypedDict):
    connected: bool
    reason: LinkReason
    message: str


def _link(link: Link) -> _LinkFields:
    return {"connected": link.ok, "reason": link.reason, "message": link.message}
