"""The part of a QueueWorker's spec that says where the executors are, and how they are used."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from queueworker.resource.model import INT_OR_STRING, Model, rule
from queueworker.resource.pod_template import PodTemplate
from queueworker.resource.urls import BaseUrl, HttpUrl


class WhenUnavailable(StrEnum):
    FAIL = "Fail"
    HOLD = "Hold"


_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
# A number of the schema's int-or-string, as text.
_PORT_TEXT = BeforeValidator(lambda value: str(value) if type(value) is int else value)


class ServiceRef(Model):
    name: str = Field(
        description="Name of a Service in the object's namespace.", min_length=1, max_length=63, pattern=_LABEL
    )
    port: Annotated[str, _PORT_TEXT] = Field(
        "http",
        min_length=1,
        max_length=63,
        pattern=_LABEL,
        description="Name of the Service's port, or port number of the endpoints. Default: http.",
        json_schema_extra={INT_OR_STRING: True, "minimum": 1, "maximum": 65535},
    )


class HealthCheckSpec(Model):
    path: str = Field(
        "/health",
        max_length=1024,
        pattern=r'^/[!"$-~]*$',
        description="Path of the health check, which answers 200 if the executor is healthy; it may have a query. "
        "Default: /health.",
    )
    timeout_seconds: int = Field(2, ge=1, le=60, description="Timeout of a health check in seconds. Default: 2.")
    period_seconds: int = Field(
        5, ge=1, le=3600, description="Seconds between two health checks of an idle, healthy executor. Default: 5."
    )
    max_age_seconds: int = Field(
        1,
        ge=1,
        le=3600,
        description="Maximum age in seconds of the last successful health check when a task is sent. Default: 1.",
    )
    failure_threshold: int = Field(
        1,
        ge=1,
        le=100,
        description="Consecutive failed health checks that make an executor unhealthy. One that times out while the "
        "executor runs a task does not count. Default: 1.",
    )
    success_threshold: int = Field(
        1,
        ge=1,
        le=100,
        description="Consecutive successful health checks that make an executor healthy again. Default: 1.",
    )


_ONE_WAY = (
    "name the executors in one way only: endpoints, service or template, or none of them for executor-1 … executor-N"
)


MAX_CONCURRENCY = 1000
MAX_COUNT = 1000
ExecutorName = Annotated[str, Field(min_length=1, max_length=253, description="Name of an executor.")]
ExecutorUrl = Annotated[HttpUrl, Field(description="URL of an executor.")]


class ExecutorsSpec(Model):
    model_config = ConfigDict(
        json_schema_extra=rule(
            "[has(self.endpoints) && self.endpoints.size() > 0, has(self.service), has(self.template)]"
            ".filter(x, x).size() <= 1",
            _ONE_WAY,
        )
    )

    count: int = Field(
        1,
        ge=0,
        le=MAX_COUNT,
        description="Number of pods of the template, or of numbered executors, executor-1 … executor-N; `kubectl "
        "scale` sets it. Ignored with endpoints or service. Default: 1.",
    )
    base_url: BaseUrl = Field(
        "http://executor",
        alias="baseURL",
        description="Base URL of numbered executors. Number and port are appended: http://executor becomes "
        "http://executor-1:8083. Or a template with {n} in host or path, whose own port counts if it has one: "
        "http://gateway:9000/executors/{n}. Default: http://executor.",
    )
    port: int = Field(
        8083, ge=1, le=65535, description="TCP port of numbered executors, if baseURL has none. Default: 8083."
    )
    endpoints: tuple[ExecutorUrl, ...] = Field(
        (),
        max_length=200,
        description="URLs of the executors, in place of numbered executors. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    service: ServiceRef | None = Field(
        None,
        description="Service whose ready endpoints are the executors; its EndpointSlices are watched. Default: none.",
    )
    drained: tuple[ExecutorName, ...] = Field(
        (),
        max_length=200,
        description="Names of executors, as in status, that get no new tasks and finish those that they run. "
        "`kubectl queueworker drain` sets it. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    template: PodTemplate | None = Field(
        None,
        description="Template of pods that the operator runs as executors: `count` of them, in a StatefulSet. An "
        "executor listens on the port with the name http, else on `port`. Default: none.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=MAX_CONCURRENCY,
        description="Maximum number of tasks that one executor runs at once; fewer if the executor advertises fewer at "
        "/capacity. Default: what the executor advertises (max_concurrent), else 1.",
    )
    slow_start_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="Seconds in which an executor that is new or healthy again in a busy pool goes from one task at "
        "once to all its slots; 0 disables slow start. The default is two periods of the health check. No effect on "
        "an executor with one slot. Default: 10.",
    )
    health_check: HealthCheckSpec = Field(HealthCheckSpec(), description="Health checks of the executors.")
    when_unavailable: WhenUnavailable = Field(
        WhenUnavailable.FAIL,
        description="Behaviour while no executor is healthy; tasks stay in the queue. Fail: a pulled task is reported "
        "as failed after the grace period. Hold: a pulled task waits. Default: Fail.",
    )
    unavailable_grace_seconds: int = Field(
        10,
        ge=0,
        le=86400,
        description="Seconds that a pulled task waits for a healthy executor before it fails. Default: 10.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum((bool(self.endpoints), self.service is not None, self.template is not None)) > 1:
            raise ValueError(_ONE_WAY)
        return self
