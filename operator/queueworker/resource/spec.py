"""The spec of a QueueWorker: the one place where its fields, defaults, bounds and descriptions are written.

The CRD, its reference page and the worker's environment variables are made from these models. Rules
that join two fields, or look into a string, stand twice: here, for the worker without Kubernetes, and
as CEL beside them (`json_schema_extra`), for the API server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

CEL = "x-kubernetes-validations"
DEFAULT_REDIS_URL = "redis://redis:6379"


class Strategy(StrEnum):
    """How an executor is chosen among the healthy ones that have a free slot."""

    RANDOM = "Random"
    ROUND_ROBIN = "RoundRobin"
    LEAST_LOADED = "LeastLoaded"
    WEIGHTED = "Weighted"
    STICKY = "Sticky"


class StickyKey(StrEnum):
    """The task field that Sticky hashes."""

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


class JournalPolicy(StrEnum):
    PREFERRED = "Preferred"
    REQUIRED = "Required"


def rule(cel: str, message: str) -> dict[str, Any]:
    """A CEL rule of the API server's, with the sentence that its user reads."""
    return {CEL: [{"rule": cel, "message": message}]}


def _checked_url(schemes: tuple[str, ...], message: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{message} ({error})") from error
        if parts.scheme not in schemes or not (parts.hostname or (parts.scheme == "unix" and parts.path)) or port == 0:
            raise ValueError(message)
        return value

    return AfterValidator(check)


_HTTP_MESSAGE = "must be an http:// or https:// URL with a host, for example http://queue:8081"
_HTTP_CEL = "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''"
_REDIS_MESSAGE = "must be a redis://, rediss:// or unix:// URL, for example redis://redis:6379"
_REDIS_CEL = (
    "isURL(self) && (url(self).getScheme() == 'unix' || "
    "(url(self).getScheme() in ['redis', 'rediss'] && url(self).getHostname() != ''))"
)
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

HttpUrl = Annotated[
    str,
    Field(max_length=2048, json_schema_extra=rule(_HTTP_CEL, _HTTP_MESSAGE)),
    _checked_url(("http", "https"), _HTTP_MESSAGE),
]
RedisUrl = Annotated[
    str,
    Field(max_length=2048, json_schema_extra=rule(_REDIS_CEL, _REDIS_MESSAGE)),
    _checked_url(("redis", "rediss", "unix"), _REDIS_MESSAGE),
]


class Model(BaseModel):
    """camelCase outside, snake_case inside; closed, and never changed once made."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class SecretKeyRef(Model):
    """One key of a Secret in the object's own namespace."""

    name: str = Field(description="Name of the Secret.", min_length=1, max_length=253, pattern=_NAME)
    key: str = Field(description="Key within the Secret.", min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")


class QueueSpec(Model):
    url: HttpUrl = Field("http://queue:8081", description="Where the queue service is. Default: http://queue:8081.")
    api_key_secret_ref: SecretKeyRef | None = Field(
        None, description="The Secret key that holds the queue's API key (header X-API-Key). Default: no key is sent."
    )
    poll_interval_seconds: int = Field(
        1, ge=1, le=3600, description="Seconds between two polls while the queue is empty. Default: 1."
    )


class ServiceRef(Model):
    name: str = Field(
        description="Name of a Service in the object's namespace.", min_length=1, max_length=63, pattern=_NAME
    )
    port: str = Field(
        "http",
        min_length=1,
        max_length=63,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)$",
        description="Name of the Service's port, or the endpoints' port number in quotes. Default: http.",
    )


class HealthCheckSpec(Model):
    path: str = Field(
        "/health",
        max_length=1024,
        pattern=r"^/\S*$",
        description="Path that answers 200 when healthy. Default: /health.",
    )
    timeout_seconds: int = Field(2, ge=1, le=60, description="Seconds an executor has to answer a check. Default: 2.")
    period_seconds: int = Field(
        5, ge=1, le=3600, description="Seconds between two checks of an idle, healthy executor. Default: 5."
    )
    max_age_seconds: int = Field(
        1,
        ge=1,
        le=3600,
        description="No task goes to an executor whose last good check is older than this many seconds. Default: 1.",
    )
    failure_threshold: int = Field(
        1, ge=1, le=100, description="Bad checks in a row that make an executor unhealthy. Default: 1."
    )
    success_threshold: int = Field(
        1, ge=1, le=100, description="Good checks in a row that make an executor healthy again. Default: 1."
    )


_ONE_WAY = "name the executors in one way only: endpoints or service, or neither of them for executor-1 … executor-N"


class ExecutorsSpec(Model):
    model_config = ConfigDict(
        json_schema_extra=rule(
            "[has(self.endpoints) && self.endpoints.size() > 0, has(self.service)].filter(x, x).size() <= 1", _ONE_WAY
        )
    )

    count: int = Field(
        1,
        ge=0,
        le=1000,
        description="Number of numbered executors, executor-1 … executor-N; `kubectl scale` sets it. Ignored with "
        "endpoints or service. Default: 1.",
    )
    base_url: HttpUrl = Field(
        "http://executor",
        alias="baseURL",
        description="Numbered executors: the URL in front of -1, -2 …; with port 8083, http://executor becomes "
        "http://executor-1:8083. Default: http://executor.",
    )
    port: int = Field(8083, ge=1, le=65535, description="Numbered executors: their TCP port. Default: 8083.")
    endpoints: tuple[HttpUrl, ...] = Field(
        (), max_length=200, description="A fixed list of executor URLs, in place of numbered executors. Default: none."
    )
    service: ServiceRef | None = Field(
        None,
        description="A Service whose ready endpoints are the executors, followed by its EndpointSlices. Default: none.",
    )
    concurrency: int = Field(1, ge=1, le=1000, description="Tasks that one executor runs at once, at most. Default: 1.")
    slow_start_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="Seconds in which an executor that comes, or comes back, to a pool at work goes from one task at "
        "once to concurrency; 0 gives it all at once. Two periods of the health check by default: it is "
        "seen to stay up before it has its full share. No effect with concurrency 1. Default: 10.",
    )
    health_check: HealthCheckSpec = Field(HealthCheckSpec(), description="When an executor counts as healthy.")
    when_unavailable: WhenUnavailable = Field(
        WhenUnavailable.FAIL,
        description="While no executor is healthy. Fail: a task is reported as failed after the grace. "
        "Hold: tasks stay in the queue, and one that was pulled waits. Default: Fail.",
    )
    unavailable_grace_seconds: int = Field(
        10, ge=0, le=86400, description="Seconds that a task waits for a healthy executor before it fails. Default: 10."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.endpoints and self.service is not None:
            raise ValueError(_ONE_WAY)
        return self


class RetrySpec(Model):
    attempts: int = Field(
        1,
        ge=1,
        le=100,
        description="Attempts at a task whose outcome is unknown (a broken connection, a timeout, a 5xx); 1 is no "
        "retry. What provably did not start is always sent again. Default: 1.",
    )
    backoff_seconds: int = Field(
        1, ge=0, le=3600, description="Seconds before the second attempt; doubled for each further one. Default: 1."
    )
    max_backoff_seconds: int = Field(
        30, ge=0, le=86400, description="Seconds between two attempts, at most. Default: 30."
    )


class RoutingSpec(Model):
    strategy: Strategy = Field(
        Strategy.RANDOM,
        description="How an executor is chosen among the healthy ones with a free slot: Random, RoundRobin, "
        "LeastLoaded (in flight over capacity), Weighted (by capacity), Sticky (the same key to the same executor). "
        "Default: Random.",
    )
    sticky_key: StickyKey = Field(
        StickyKey.CODE,
        description="The task field that Sticky goes by: EvalID, Code, Language or Engine. Default: Code.",
    )
    task_timeout_seconds: int = Field(
        30, ge=1, le=86400, description="Seconds that a task may run when it brings no timeout of its own. Default: 30."
    )
    retry: RetrySpec = Field(RetrySpec(), description="What becomes of an attempt whose outcome is unknown.")
    recovery: Recovery = Field(
        Recovery.RETRY,
        description="What becomes of a task that was executing when its router died: Retry runs it again, Fail reports "
        "it as failed. Default: Retry.",
    )
    drain_seconds: int = Field(
        30,
        ge=0,
        le=3600,
        description="Seconds that running tasks get to finish when the router stops; the rest stays in the journal. "
        "Default: 30.",
    )
    journal: JournalPolicy = Field(
        JournalPolicy.PREFERRED,
        description="While the journal cannot be written. Preferred: route on. Required: pull nothing new. "
        "Default: Preferred.",
    )
    max_body_mebibytes: int = Field(
        8,
        ge=1,
        le=64,
        description="Largest task and largest result, in mebibytes (1,048,576 bytes). A task with a larger result is "
        "reported as failed, with an error that names the size, the limit and this field; a larger task likewise. "
        "Default: 8.",
        json_schema_extra={"format": "int32"},
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
        description=f"The Redis for events and the journal. Default: {DEFAULT_REDIS_URL}.",
    )
    redis_url_secret_ref: SecretKeyRef | None = Field(
        None,
        alias="redisURLSecretRef",
        description="The Secret key that holds the Redis URL, when it has a password. Default: none.",
    )

    @property
    def effective_redis_url(self) -> str:
        """The URL when no Secret holds it."""
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
        description="Percent of the platform's traffic that goes to Celery, not to this queue. At 100 the router "
        "drains and stands by; below it routes whatever the queue gives. Default: 50.",
    )
    force_legacy_queue: bool = Field(False, description="Route whatever celeryPercent says. Default: false.")


class QueueWorkerSpec(Model):
    """A queue, the executors that work on it, and the rules between them."""

    suspend: bool = Field(False, description="Drain, then route nothing until it is false again. Default: false.")
    queue: QueueSpec = Field(QueueSpec(), description="The legacy HTTP queue that tasks come from.")
    executors: ExecutorsSpec = Field(
        ExecutorsSpec(),
        description="The pool of executors: numbered (executor-1 … executor-N), a list of endpoints, or a Service.",
    )
    routing: RoutingSpec = Field(RoutingSpec(), description="How tasks are given to executors.")
    events: EventsSpec = Field(EventsSpec(), description="Where outcomes are published, and the journal is kept.")
    migration: MigrationSpec = Field(
        MigrationSpec(), description="How far the platform's move from this queue to Celery has come."
    )
