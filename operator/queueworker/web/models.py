"""What the HTTP face answers: the legacy worker's two shapes, and a fuller one for each QueueWorker."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from queueworker.routing.config import Intent
from queueworker.routing.counters import text_of
from queueworker.routing.snapshot import ExecutorSnapshot, LinkReason, Phase


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Health(StrEnum):
    """The legacy worker's words. `degraded`: no executor is healthy."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    STARTING = "starting"


# --- the legacy worker's shapes (docs/wire.md): dashboards read them, so no field may come or go


class LegacyExecutors(_Model):
    """The pool, as the last health checks found it."""

    total: int = Field(description="Executors in the pool.", examples=[3])
    healthy: int = Field(description="Those whose last health check was good.", examples=[2])
    health: dict[str, bool] = Field(
        description="Whether each executor is healthy, by its URL.",
        examples=[{"http://executor-1:8083": True, "http://executor-2:8083": False}],
    )


class LegacyStatus(_Model):
    """The status object of the legacy worker, field by field."""

    worker_id: str = Field(description="The worker's name: its HOSTNAME.", examples=["queue-worker-1"])
    status: Literal[Health.HEALTHY, Health.DEGRADED] = Field(description="`degraded` when no executor is healthy.")
    tasks_routed: int = Field(description="Tasks reported to the queue, complete or failed, since the start.")
    executors: LegacyExecutors


class LegacyHealth(_Model):
    """The health object of the legacy worker."""

    status: Health = Field(description="As in `details`, or `starting` before the first health check was answered.")
    service: Literal["queue-worker"] = "queue-worker"
    details: LegacyStatus


# --- one QueueWorker


class LinkStatus(_Model):
    """The connection to one peer, as the last exchange with it went."""

    connected: bool = Field(description="Whether the last exchange succeeded.")
    reason: LinkReason = Field(description="How the last exchange ended.")
    message: str = Field(description="Names the peer and the way out; empty when all is well.")


class RouterQueue(LinkStatus):
    url: str = Field(description="Where tasks are pulled from.", examples=["http://queue:8081"])
    depth: int | None = Field(
        description="Tasks that wait in the queue, as it last said; null before its first answer."
    )
    consecutive_errors: int = Field(description="Failed exchanges since the last good one; the backoff grows with it.")
    last_task_time: float | None = Field(description="When a task was last reported, Unix time in seconds.")


class RouterEvents(LinkStatus):
    published: int = Field(description=text_of("events_published"))
    dropped: int = Field(description=text_of("events_dropped"))
    buffered: int = Field(description="Events that wait for Redis.")


class RouterTasks(_Model):
    """Counts since this router started."""

    pulled: int = Field(description=text_of("pulled"))
    routed: int = Field(description="Tasks reported to the queue: completed and failed.")
    completed: int = Field(description=text_of("completed"))
    failed: int = Field(description=text_of("failed"))
    retried: int = Field(description=text_of("retried"))
    recovered: int = Field(description=text_of("recovered"))
    in_flight: int = Field(description="Tasks handed over and not reported yet.")
    per_minute: int = Field(description="Tasks reported in the last 60 seconds.")


class RouterStatus(_Model):
    """One QueueWorker: its router, its pool and its peers, at this moment."""

    name: str = Field(description="`namespace/name` of the object; of a worker, the group of its journal.")
    worker_id: str = Field(description="Which process routes for it.")
    status: Health = Field(description="`degraded` when no executor is healthy, `starting` before the first check.")
    intent: Intent = Field(description="What the object asks for.")
    phase: Phase = Field(description="Where the router stands.")
    queue: RouterQueue
    executors: list[ExecutorSnapshot] = Field(description="The pool, and executors that left it with tasks to finish.")
    tasks: RouterTasks
    events: RouterEvents = Field(description="The outcomes' way to Redis.")
    journal: LinkStatus = Field(description="While it cannot be written, a crash would lose what is in flight.")


class OperatorStatus(_Model):
    """Every QueueWorker that this operator routes for."""

    queue_workers: list[RouterStatus] = Field(description="Ordered by name.")


class OperatorHealthDetails(_Model):
    queue_workers: int = Field(description="QueueWorkers that this operator routes for.")
    healthy: int = Field(description="Those with a healthy executor.")
    message: str = Field(description="What `/readyz` says.")


class OperatorHealth(_Model):
    """The legacy health object, for an operator."""

    status: Health = Field(description="`degraded` when a QueueWorker that should route has no healthy executor.")
    service: Literal["queueworker-operator"] = "queueworker-operator"
    details: OperatorHealthDetails


# --- probes and errors


class Probe(_Model):
    """The answer to a probe: 200 when `ok`, else 503."""

    ok: bool = Field(description="Whether the answer is yes.")
    reason: str = Field(description="Why, in a sentence.", examples=["routing"])


class ErrorDetail(_Model):
    detail: str = Field(description="What is wrong, and what to do.")
