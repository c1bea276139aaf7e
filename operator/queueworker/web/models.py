"""The answers of the HTTP API: the two of the legacy worker, and a complete one for each QueueWorker."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from queueworker.routing.config import Intent
from queueworker.routing.counters import LossCause, text_of
from queueworker.routing.snapshot import ExecutorSnapshot, LinkReason, Phase, Pipeline


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Health(StrEnum):
    """The health values of the legacy worker. `degraded`: no executor is healthy."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    STARTING = "starting"


# --- answers of the legacy worker (docs/wire.md). Dashboards read them: no field may be added or removed.


class LegacyExecutors(_Model):
    """The pool, by the last health checks."""

    total: int = Field(description="Executors in the pool.", examples=[3])
    healthy: int = Field(description="Executors in the pool that are healthy.", examples=[2])
    health: dict[str, bool] = Field(
        description="Health of each executor by its URL.",
        examples=[{"http://executor-1:8083": True, "http://executor-2:8083": False}],
    )


class LegacyStatus(_Model):
    """The status object of the legacy worker."""

    worker_id: str = Field(description="Name of the worker, from HOSTNAME.", examples=["queue-worker-1"])
    status: Literal[Health.HEALTHY, Health.DEGRADED] = Field(description="`degraded` if no executor is healthy.")
    tasks_routed: int = Field(description="Tasks reported to the queue since the start, completed or failed.")
    executors: LegacyExecutors


class LegacyHealth(_Model):
    """The health object of the legacy worker."""

    status: Health = Field(description="As in `details`, or `starting` before the first answer to a health check.")
    service: Literal["queue-worker"] = "queue-worker"
    details: LegacyStatus


# --- one QueueWorker


class LinkStatus(_Model):
    """The connection to one peer, by the last exchange with it."""

    connected: bool = Field(description="True if the last exchange succeeded.")
    reason: LinkReason = Field(description="Result of the last exchange.")
    message: str = Field(description="Names the peer and says what to do; empty if all is well.")


class RouterQueue(LinkStatus):
    url: str = Field(description="URL of the queue.", examples=["http://queue:8081"])
    depth: int | None = Field(
        description="Tasks waiting in the queue, by its last answer; null before the first answer."
    )
    consecutive_errors: int = Field(description="Consecutive failed exchanges. The backoff grows with this number.")
    pulls_lost: dict[LossCause, int] = Field(
        description=text_of("pulls_lost_no_answer"),
        examples=[{"no_answer": 1, "not_the_queues": 0, "unreadable": 0}],
    )
    last_task_time: float | None = Field(description="Unix time in seconds of the last report of a task.")


class RouterEvents(LinkStatus):
    published: int = Field(description=text_of("events_published"))
    dropped: int = Field(description=text_of("events_dropped"))
    buffered: int = Field(description="Events waiting for Redis.")


class RouterTasks(_Model):
    """Counts since the router started."""

    pulled: int = Field(description=text_of("pulled"))
    routed: int = Field(description="Tasks reported to the queue, completed or failed.")
    completed: int = Field(description=text_of("completed"))
    failed: int = Field(description=text_of("failed"))
    retried: int = Field(description=text_of("retried"))
    recovered: int = Field(description=text_of("recovered"))
    in_flight: int = Field(description="Tasks pulled and not reported yet.")
    per_minute: int = Field(description="Tasks reported in the last 60 seconds.")
    failed_per_minute: int = Field(description="Tasks reported as failed in the last 60 seconds.")
    p50_seconds: float | None = Field(
        description="Median of the seconds that attempts took in the last minute; null if none ended in it."
    )
    p95_seconds: float | None = Field(description="As `p50_seconds`: 95 % of the attempts took no longer.")
    pipeline: Pipeline


class RouterStatus(_Model):
    """One QueueWorker: its router, its executors, and its connections to the queue and Redis."""

    name: str = Field(description="`namespace/name` of the object; for a worker, the group of its journal.")
    worker_id: str = Field(description="Name of the process that runs the router.")
    status: Health = Field(
        description="`degraded` if no executor is healthy, `starting` before the first health check."
    )
    intent: Intent = Field(description="Intent of the object's spec.")
    phase: Phase = Field(description="Phase of the router.")
    queue: RouterQueue
    executors: list[ExecutorSnapshot] = Field(
        description="Executors in the pool, and executors that left it and finish their tasks."
    )
    tasks: RouterTasks
    events: RouterEvents = Field(description="The connection to Redis that publishes events.")
    journal: LinkStatus = Field(
        description="The connection to Redis that holds the journal. Without it, a crash loses the tasks in flight."
    )


class OperatorStatus(_Model):
    """All QueueWorkers that this replica of the operator routes for."""

    leading: bool = Field(description="True if this replica leads. Only the leader routes.")
    leader: str = Field(
        description="The replica that holds the Lease, as this one saw it last; empty if there is none.",
        examples=["queueworker-operator-5c6f-xk2lp-1a2b3c4d"],
    )
    queue_workers: list[RouterStatus] = Field(description="Sorted by name.")


class OperatorHealthDetails(_Model):
    queue_workers: int = Field(description="QueueWorkers that this operator routes for.")
    healthy: int = Field(description="QueueWorkers with a healthy executor.")
    message: str = Field(description="The reason that `/readyz` gives.")


class OperatorHealth(_Model):
    """The health object of the legacy worker, for an operator."""

    status: Health = Field(description="`degraded` if a QueueWorker that should route has no healthy executor.")
    service: Literal["queueworker-operator"] = "queueworker-operator"
    details: OperatorHealthDetails


# --- probes and errors


class Probe(_Model):
    """The answer to a probe: 200 if `ok`, else 503."""

    ok: bool = Field(description="True if the probe succeeded.")
    reason: str = Field(description="Reason for the result, in a sentence.", examples=["routing"])


class ErrorDetail(_Model):
    detail: str = Field(description="The problem and what to do.")
