"""The status of a QueueWorker, as the operator writes it. Counters continue from the values of an earlier operator."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from queueworker.resource.model import Model
from queueworker.resource.reasons import ConditionType, Reason

MAX_ENDPOINTS = 100
MAX_MESSAGE = 1024
"""Ours are shorter than the schema allows, which is as long as in metav1.Condition."""
MAX_NAME = 253
MAX_URL = 2048
MAX_INT32 = 2**31 - 1
"""Of numbers of executors and slots, as in autoscaling/v1: the scale subresource reads `executors.desired`."""

ConditionStatus = Literal["True", "False", "Unknown"]
# From metav1.Condition.
_TYPE = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)
_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
_WORD = r"^[A-Z][A-Za-z0-9]*$"


def _open(pattern: str, length: int) -> Any:
    """The schema of a string whose values are no closed list: a newer operator may write others, and this one must be
    able to read them.
    """
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": length, "pattern": pattern})


class StatusModel(Model):
    """Unlike a spec, a status may have unknown fields: an operator of a newer version wrote them."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusModel):
    """A condition in the form of metav1.Condition."""

    type: Annotated[ConditionType | str, _open(_TYPE, 316)] = Field(description="Subject of the condition.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[Reason | str, _open(_REASON, 1024)] = Field(
        description="Reason for the status, in one word that scripts may match."
    )
    message: str = Field("", max_length=32768, description="Reason for the status, in a sentence that says what to do.")
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that the condition refers to.")
    last_transition_time: datetime = Field(description="Time of the last change of status.")


class EndpointStatus(StatusModel):
    """One executor."""

    name: str = Field(max_length=MAX_NAME, description="Name of the executor in metrics and conditions.")
    url: str = Field(max_length=MAX_URL, description="Base URL of the executor, without /execute and /health.")
    healthy: bool = Field(description="True if its last health checks succeeded. Tasks go to healthy executors only.")
    in_flight: int = Field(
        0,
        ge=0,
        le=MAX_INT32,
        description="Slots in use: tasks that the executor runs now, and slots that cool down after failed tasks.",
    )
    capacity: int = Field(1, ge=0, le=MAX_INT32, description="Tasks that the executor may run at once.")
    last_check_time: datetime | None = Field(None, description="Time of the last answer to a health check.")
    reason: str = Field("", max_length=MAX_MESSAGE, description="Reason why it is not healthy; empty if it is.")


class ExecutorsStatus(StatusModel):
    desired: int = Field(0, ge=0, le=MAX_INT32, description="Executors in the pool.")
    healthy: int = Field(0, ge=0, le=MAX_INT32, description="Executors in the pool that are healthy.")
    summary: str = Field("0/0", max_length=32, description="Healthy executors of those in the pool.")
    endpoints: tuple[EndpointStatus, ...] = Field(
        (), max_length=MAX_ENDPOINTS, description=f"The first {MAX_ENDPOINTS} executors."
    )


class TasksStatus(StatusModel):
    routed: int = Field(0, ge=0, description="Tasks reported to the queue, completed or failed.")
    completed: int = Field(0, ge=0, description="Tasks reported to the queue as completed.")
    failed: int = Field(0, ge=0, description="Tasks reported to the queue as failed, for any reason.")
    retried: int = Field(0, ge=0, description="Attempts repeated because the outcome of the last one was unknown.")
    recovered: int = Field(0, ge=0, description="Tasks taken over from the journal of a router that died.")
    in_flight: int = Field(0, ge=0, description="Tasks pulled and not reported yet.")
    per_minute: int = Field(0, ge=0, description="Tasks reported in the last 60 seconds.")


class QueueStatus(StatusModel):
    url: str = Field(
        "", max_length=MAX_URL, description="URL of the queue that the router uses, with the whole name of its host."
    )
    depth: int | None = Field(None, ge=0, description="Tasks waiting in the queue, by its last answer.")
    consecutive_errors: int = Field(0, ge=0, description="Consecutive failures to reach the queue.")
    last_task_time: datetime | None = Field(None, description="Time of the last report of a task.")


class MigrationStatus(StatusModel):
    phase: Annotated[str, _open(_WORD, 64)] = Field(
        description="Split: at most half of the traffic goes to Celery. Reduction: more than half. Standby: all of it."
    )
    standby_since: datetime | None = Field(None, description="Time when the router went to standby.")


class QueueWorkerStatus(StatusModel):
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that this status refers to.")
    conditions: tuple[Condition, ...] = Field(
        (),
        max_length=16,
        description="Ready, ExecutorsAvailable, QueueReachable, EventsPublished, JournalWritable; PoolReady for the "
        "pods of executors.template.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    executors: ExecutorsStatus | None = Field(None, description="The pool of executors.")
    tasks: TasksStatus | None = Field(None, description="Counts since the object was created.")
    queue: QueueStatus | None = Field(None, description="The queue, by the last exchanges with it.")
    migration: MigrationStatus | None = Field(None, description="Progress of the migration to Celery.")
    selector: str | None = Field(None, max_length=512, description="Label selector for the scale subresource.")


def description_of(model: type[BaseModel], field: str) -> str:
    """The description of a field, for metrics and for the HTTP API, which show the same value."""
    return model.model_fields[field].description or ""
