"""The object's status: a pure function of its router's snapshot, of the operator's problems and of the last status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import ValidationError

from queueworker.controller.conditions import condition_states, conditions
from queueworker.redaction import without_credentials
from queueworker.resource.names import LABEL_QUEUEWORKER
from queueworker.resource.status import (
    MAX_ENDPOINTS,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_URL,
    EndpointStatus,
    ExecutorsStatus,
    MigrationStatus,
    QueueStatus,
    QueueWorkerStatus,
    TasksStatus,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.controller.conditions import ConditionState, Problems
    from queueworker.resource.spec import MigrationSpec, QueueWorkerSpec
    from queueworker.routing.counters import Counters
    from queueworker.routing.snapshot import ExecutorSnapshot, Snapshot


class _OptionalParts(TypedDict, total=False):
    migration: MigrationStatus
    executors: ExecutorsStatus
    tasks: TasksStatus
    queue: QueueStatus


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the earlier routers of the object, which its status adds to."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    recovered: int = 0

    @classmethod
    def of(cls, tasks: TasksStatus | None) -> Totals:
        return cls() if tasks is None else cls(tasks.completed, tasks.failed, tasks.retried, tasks.recovered)

    def minus(self, other: Totals) -> Totals:
        return Totals(
            self.completed - other.completed,
            self.failed - other.failed,
            self.retried - other.retried,
            self.recovered - other.recovered,
        )

    def plus(self, counters: Counters | Totals) -> Totals:
        return Totals(
            self.completed + counters.completed,
            self.failed + counters.failed,
            self.retried + counters.retried,
            self.recovered + counters.recovered,
        )


@dataclass(frozen=True, slots=True)
class PoolView:
    """What the status shows of the pods that the operator runs.

    `count`: the pods that are wanted; `generation`: that of the spec that wants them.
    """

    count: int | None = None
    condition: ConditionState | None = None
    generation: int = 0


NO_POOL = PoolView()


def read(status: Mapping[str, Any]) -> QueueWorkerStatus:
    """The status that an object has. Parts that this version cannot read are dropped, never an error."""
    try:
        return QueueWorkerStatus.model_validate(status)
    except ValidationError as error:
        unreadable = {details["loc"][0] for details in error.errors()}
        return QueueWorkerStatus.model_validate({k: v for k, v in status.items() if k not in unreadable})


def merge_patch(status: QueueWorkerStatus) -> dict[str, Any]:
    """The status as a merge patch: null removes a value, and a part that is not set keeps what the object has."""
    return status.model_dump(mode="json", by_alias=True, exclude_unset=True)


def build(
    spec: QueueWorkerSpec | None,
    snapshot: Snapshot | None,
    problems: Problems,
    *,
    previous: QueueWorkerStatus,
    totals: Totals,
    generation: int,
    applied: int,
    name: str,
    now: datetime,
    pool: PoolView = NO_POOL,
) -> QueueWorkerStatus:
    """The whole status. `applied` is the generation of the spec that runs, `generation` that of the object.

    Without a spec, `migration` is not set; without a snapshot, the router's parts are not set.
    """
    now = _whole_seconds(now)
    states = condition_states(snapshot, problems)
    told = conditions(states, previous.conditions, generation, applied, now)
    if pool.condition is not None:
        told += conditions([pool.condition], previous.conditions, generation, pool.generation, now)
    parts: _OptionalParts = {}
    if spec is not None:
        parts["migration"] = migration(spec.migration, previous.migration, now)
    if snapshot is not None:
        parts["executors"] = _executors(snapshot, pool.count)
        parts["tasks"] = _tasks(snapshot, totals)
        parts["queue"] = _queue(snapshot, previous.queue)
    return QueueWorkerStatus(
        observed_generation=applied,
        conditions=told,
        selector=f"{LABEL_QUEUEWORKER}={name}",
        **parts,
    )


def migration(spec: MigrationSpec, previous: MigrationStatus | None, now: datetime) -> MigrationStatus:
    """With `forceLegacyQueue` there is no standby: this queue routes everything that it is given."""
    if spec.celery_percent >= 100 and not spec.force_legacy_queue:
        since = previous.standby_since if previous is not None else None
        return MigrationStatus(phase="Standby", standby_since=since or now)
    return MigrationStatus(phase="Split" if spec.celery_percent <= 50 else "Reduction", standby_since=None)


def transition(status: QueueWorkerStatus) -> object:
    """The parts of a status whose change is written at once; other changes wait for the next heartbeat."""
    executors = status.executors or ExecutorsStatus()
    return (
        status.observed_generation,
        [(c.type, c.status, c.reason) for c in status.conditions],
        status.migration and status.migration.phase,
        executors.summary,
        [(e.name, e.url, e.healthy) for e in executors.endpoints],
    )


def _executors(snapshot: Snapshot, count: int | None) -> ExecutorsStatus:
    """`count`: the pods that are to be there; a pod that is still starting is not yet in the router's pool."""
    desired = snapshot.desired if count is None else count
    return ExecutorsStatus(
        desired=desired,
        healthy=snapshot.healthy,
        summary=f"{snapshot.healthy}/{desired}",
        endpoints=tuple(_endpoint(e) for e in snapshot.executors[:MAX_ENDPOINTS]),
    )


def _endpoint(executor: ExecutorSnapshot) -> EndpointStatus:
    return EndpointStatus(
        name=executor.name[:MAX_NAME],
        url=without_credentials(executor.url)[:MAX_URL],
        healthy=executor.healthy,
        in_flight=executor.in_flight,
        capacity=executor.capacity,
        last_check_time=_time(executor.last_check),
        reason=without_credentials(executor.reason)[:MAX_MESSAGE],
    )


def _tasks(snapshot: Snapshot, before: Totals) -> TasksStatus:
    totals = before.plus(snapshot.counters)
    return TasksStatus(
        routed=totals.completed + totals.failed,
        completed=totals.completed,
        failed=totals.failed,
        retried=totals.retried,
        recovered=totals.recovered,
        in_flight=snapshot.in_flight,
        per_minute=snapshot.per_minute,
    )


def _queue(snapshot: Snapshot, previous: QueueStatus | None) -> QueueStatus:
    before = previous.last_task_time if previous is not None else None
    return QueueStatus(
        url=without_credentials(snapshot.queue_url)[:MAX_URL],
        depth=snapshot.queue_depth,
        consecutive_errors=snapshot.consecutive_errors,
        last_task_time=_time(snapshot.last_task_time) or before,
    )


def _time(unix: float | None) -> datetime | None:
    return None if unix is None else _whole_seconds(datetime.fromtimestamp(unix, UTC))


def _whole_seconds(moment: datetime) -> datetime:
    """In UTC, as Kubernetes writes times."""
    return moment.astimezone(UTC).replace(microsecond=0)
