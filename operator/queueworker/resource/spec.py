"""The spec of a QueueWorker: fields, defaults, bounds and descriptions.

The CRD, its reference page and the worker's environment variables are made from these models. A rule about two fields
or about the content of a string exists twice: in Python for the worker without Kubernetes, and beside it in CEL
(`json_schema_extra`) for the API server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from queueworker.resource.model import Model
from queueworker.resource.pod_template import PodTemplate
from queueworker.resource.redis_url import DEFAULT_REDIS_URL
from queueworker.resource.urls import CEL, BaseUrl, HttpUrl, RedisUrl


class Strategy(StrEnum):
    """Strategy for the choice among healthy executors with a free slot."""

    RANDOM = "Random"
    ROUND_ROBIN = "RoundRobin"
    LEAST_LOADED = "LeastLoaded"
    WEIGHTED = "Weighted"
    STICKY = "Sticky"


class StickyKey(StrEnum):
    """Field of the task that Sticky hashes."""

    EVAL_ID = "EvalID"
    CODE = "Code"
    LANGUAGE = "Language"
    ENGINE = "Engine"


class WhenUnavailable(StrEnum):
    FAIL = "Fail"
    HOLD = "Hold"


class Recovery(StrEnum):
    RETRY = "Retry"
    FAIL = "Fail"


class EventFormat(StrEnum):
    LEGACY = "Legacy"
    CLOUD_EVENTS = "CloudEvents"


class JournalPolicy(StrEnum):
    PREFERRED = "Preferred"
    REQUIRED = "Required"


def rule(cel: str, message: str) -> dict[str, Any]:
    """A CEL rule for the API server, with the message for the user."""
    return {CEL: [{"rule": cel, "message": message}]}


INT_OR_STRING = "x-kubernetes-int-or-string"
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class SecretKeyRef(Model):
    """One key of a Secret in the object's own namespace."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    name: str = Field(description="Name of the Secret.", min_length=1, max_length=253, pattern=_NAME)
    key: str = Field(description="Key within the Secret.", min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")


class QueueSpec(Model):
    url: HttpUrl = Field("http://queue:8081", description="URL of the queue service. Default: http://queue:8081.")
    api_key_secret_ref: SecretKeyRef | None = Field(
        None, description="Key of a Secret that holds the queue's API key (header X-API-Key). Default: no key is sent."
    )
    poll_interval_seconds: int = Field(
        1, ge=1, le=3600, description="Seconds between two polls while the queue is empty. Default: 1."
    )


def _port_text(value: object) -> object:
    """A number of the schema's int-or-string, as text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ServiceRef(Model):
    name: str = Field(
        description="Name of a Service in the object's namespace.", min_length=1, max_length=63, pattern=_LABEL
    )
    port: Annotated[str, BeforeValidator(_port_text)] = Field(
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
        pattern=r"^/\S*$",
        description="Path of the health check, which answers 200 if the executor is healthy. Default: /health.",
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
        le=1000,
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


# One second is the default, so maxBackoffSeconds: 0 alone goes on to mean "no backoff". The API server applies the rule
# to the default ({}) too, before it fills the fields in.
_BACKOFFS = rule(
    "!has(self.backoffSeconds) || !has(self.maxBackoffSeconds) || "
    "self.backoffSeconds <= self.maxBackoffSeconds || self.backoffSeconds <= 1",
    "backoffSeconds must not be greater than maxBackoffSeconds, which it would never exceed anyway",
)


class RetrySpec(Model):
    model_config = ConfigDict(json_schema_extra=_BACKOFFS)

    attempts: int = Field(
        1,
        ge=1,
        le=100,
        description="Maximum number of attempts for a task whose outcome is unknown (a broken connection, a timeout, a "
        "5xx status); 1 means no retry. A task that certainly did not start is always sent again. Default: 1.",
    )
    backoff_seconds: int = Field(
        1, ge=0, le=3600, description="Seconds before the second attempt; doubled for each further attempt. Default: 1."
    )
    max_backoff_seconds: int = Field(
        30, ge=0, le=86400, description="Maximum seconds between two attempts. Default: 30."
    )


class RoutingSpec(Model):
    strategy: Strategy = Field(
        Strategy.RANDOM,
        description="Strategy for the choice among healthy executors with a free slot: Random, RoundRobin, LeastLoaded "
        "(lowest share of its slots in use), Weighted (by capacity), Sticky (equal keys to the same executor). "
        "Default: Random.",
    )
    sticky_key: StickyKey = Field(
        StickyKey.CODE,
        description="Field of the task that Sticky uses as key: EvalID, Code, Language or Engine. Default: Code.",
    )
    task_timeout_seconds: int = Field(
        30, ge=1, le=86400, description="Timeout in seconds of a task that has no timeout of its own. Default: 30."
    )
    retry: RetrySpec = Field(RetrySpec(), description="Retries after an unknown outcome.")
    recovery: Recovery = Field(
        Recovery.RETRY,
        description="Treatment of a task that was executing when its router died. Retry: run it again. Fail: report it "
        "as failed. Default: Retry.",
    )
    drain_seconds: int = Field(
        30,
        ge=0,
        le=3600,
        description="Seconds that running tasks have to finish when the router stops. Tasks that do not finish stay in "
        "the journal. Default: 30.",
    )
    journal: JournalPolicy = Field(
        JournalPolicy.PREFERRED,
        description="Behaviour while the journal cannot be written. Preferred: continue to route. Required: pull no "
        "new tasks. Default: Preferred.",
    )
    max_body_mebibytes: int = Field(
        8,
        ge=1,
        le=64,
        description="Maximum size of a task and of a result, in mebibytes (1,048,576 bytes). A larger task, or a task "
        "with a larger result, is reported as failed; the error names the size, the limit and "
        "routing.maxBodyMebibytes. Default: 8.",
    )

    @property
    def max_body_bytes(self) -> int:
        """The limit of one task and of one result, in bytes."""
        return self.max_body_mebibytes * 1024 * 1024


_ONE_REDIS = "give redisURL or redisURLSecretRef, not both: the Secret is for a URL that holds a password"


class EventsSpec(Model):
    model_config = ConfigDict(
        json_schema_extra=rule("!(has(self.redisURL) && has(self.redisURLSecretRef))", _ONE_REDIS)
    )

    # No default in the schema: the API server would fill it in beside a Secret reference, against the rule above.
    redis_url: RedisUrl | None = Field(
        None,
        alias="redisURL",
        description=f"URL of the Redis for events and the journal. Default: {DEFAULT_REDIS_URL}.",
    )
    redis_url_secret_ref: SecretKeyRef | None = Field(
        None,
        alias="redisURLSecretRef",
        description="Key of a Secret that holds the Redis URL, for a URL with a password. Default: none.",
    )
    format: EventFormat = Field(
        EventFormat.LEGACY,
        description="Legacy: the fields of the legacy worker. CloudEvents: the same fields as `data` of a CloudEvent "
        "1.0 in JSON, on the same channels; every subscriber has to read that. Default: Legacy.",
    )

    @property
    def effective_redis_url(self) -> str:
        """The URL that applies if no Secret holds it."""
        return self.redis_url or DEFAULT_REDIS_URL

    @model_validator(mode="after")
    def _one_redis(self) -> Self:
        if self.redis_url is not None and self.redis_url_secret_ref is not None:
            raise ValueError(_ONE_REDIS)
        return self


class MigrationSpec(Model):
    celery_percent: int = Field(
        50,
        ge=0,
        le=100,
        description="Percentage of the platform's traffic that goes to Celery instead of this queue. At 100 the router "
        "drains and stands by; below 100 it routes everything that the queue hands out. Default: 50.",
    )
    force_legacy_queue: bool = Field(False, description="Route regardless of celeryPercent. Default: false.")


class QueueWorkerSpec(Model):
    """A queue, its executors, and the rules for routing tasks."""

    suspend: bool = Field(False, description="If true, the router drains and pulls no tasks. Default: false.")
    queue: QueueSpec = Field(QueueSpec(), description="The legacy HTTP queue.")
    executors: ExecutorsSpec = Field(
        ExecutorsSpec(),
        description="The pool of executors: numbered (executor-1 … executor-N), a list of endpoints, a Service, or "
        "pods that the operator runs.",
    )
    routing: RoutingSpec = Field(RoutingSpec(), description="Routing of tasks to executors.")
    events: EventsSpec = Field(EventsSpec(), description="The Redis for published events and the journal.")
    migration: MigrationSpec = Field(
        MigrationSpec(), description="Progress of the platform's migration from this queue to Celery."
    )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is valid and does something other than one may expect, in sentences that say what to do."""
        return tuple(filter(None, (_drain_warning(self.routing), _count_warning(self.executors))))


def _drain_warning(routing: RoutingSpec) -> str:
    drain, task = routing.drain_seconds, routing.task_timeout_seconds
    if drain >= task:
        return ""
    then = "run again" if routing.recovery is Recovery.RETRY else "are reported as failed"
    return (
        f"routing.drainSeconds ({drain}) is less than routing.taskTimeoutSeconds ({task}): tasks that do not end "
        f"within {drain} s when the router stops {then}; raise drainSeconds to at least {task}"
    )


def _count_warning(executors: ExecutorsSpec) -> str:
    """`kubectl scale` sets the count, and cannot say that it has no effect."""
    way = "endpoints" if executors.endpoints else "service" if executors.service is not None else ""
    if not way or executors.count == ExecutorsSpec.model_fields["count"].default:
        return ""
    return (
        f"executors.count ({executors.count}, which `kubectl scale` sets) has no effect with executors.{way}: "
        f"{'change the list' if way == 'endpoints' else 'scale what is behind the Service'} instead"
    )
