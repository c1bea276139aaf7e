"""The status of a QueueWorker: what the operator saw. Counters go on from where a dead operator left them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from queueworker.resource.reasons import ConditionType, Reason
from queueworker.resource.spec import Model

MAX_ENDPOINTS = 100
MAX_MESSAGE = 1024


class Condition(Model):
    """As metav1.Condition."""

    type: ConditionType = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: Reason = Field(description="Why, in one word that scripts may match.")
    message: str = Field("", max_length=MAX_MESSAGE, description="Why, in a sentence, and what to do.")
    observed_generation: int = Field(0, ge=0, description="The generation of the spec that this is about.")
    last_transition_time: datetime = Field(description="When status last changed.")


class EndpointStatus(Model):
    name: str = Field(max_length=253, description="Name of the executor.")
    url: str = Field(max_length=2048, description="URL in front of /execute and /health.")
    healthy: bool = Field(description="Whether tasks may go to it.")
    in_flight: int = Field(0, ge=0, description="Tasks it runs now.")
    capacity: int = Field(1, ge=0, description="Tasks it may run at once.")
    last_check_time: datetime | None = Field(None, description="When its health was last asked for.")
    reason: str = Field("", max_length=MAX_MESSAGE, description="Why it is not healthy.")


class ExecutorsStatus(Model):
    desired: int = Field(0, ge=0, description="Executors in the pool.")
    healthy: int = Field(0, ge=0, description="Executors that tasks may go to.")
    summary: str = Field("0/0", max_length=32, description="Healthy of desired.")
    endpoints: tuple[EndpointStatus, ...] = Field(
        (), max_length=MAX_ENDPOINTS, description=f"The executors, the first {MAX_ENDPOINTS} of them."
    )


class TasksStatus(Model):
    routed: int = Field(0, ge=0, description="Tasks reported to the queue, completed or failed.")
    completed: int = Field(0, ge=0, description="Tasks reported to the queue as completed.")
    failed: int = Field(0, ge=0, description="Tasks reported to the queue as failed, for any reason.")
    retried: int = Field(
        0, ge=0, description="Attempts repeated because the outcome of the attempt before was unknown."
    )
    recovered: int = Field(0, ge=0, description="Tasks taken over from the journal of a router that died.")
    in_flight: int = Field(0, ge=0, description="Tasks pulled and not reported yet.")
    per_minute: int = Field(0, ge=0, description="Tasks reported in the last 60 seconds.")


class QueueStatus(Model):
    depth: int | None = Field(None, ge=0, description="Tasks waiting in the queue, as it last said.")
    consecutive_errors: int = Field(0, ge=0, description="Failures in a row to reach the queue.")
    last_task_time: datetime | None = Field(None, description="When a task was last reported.")


class MigrationStatus(Model):
    phase: Literal["Split", "Reduction", "Standby"] = Field(
        description="Split: at most half goes to Celery. Reduction: more. Standby: all of it."
    )
    standby_since: datetime | None = Field(None, description="When the router began to stand by.")


class QueueWorkerStatus(Model):
    observed_generation: int = Field(0, ge=0, description="The generation of the spec that this status is about.")
    conditions: tuple[Condition, ...] = Field(
        (),
        max_length=16,
        description="Ready, ExecutorsAvailable, QueueReachable, EventsPublished, JournalWritable.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    executors: ExecutorsStatus | None = Field(None, description="The pool as it is.")
    tasks: TasksStatus | None = Field(None, description="Counts since the object was made.")
    queue: QueueStatus | None = Field(None, description="What is known of the queue.")
    migration: MigrationStatus | None = Field(None, description="Where the migration stands.")
    selector: str | None = Field(None, max_length=512, description="Label selector for the scale subresource.")
