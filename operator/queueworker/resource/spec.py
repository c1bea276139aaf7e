"""The spec of a QueueWorker: fields, defaults, bounds and descriptions.

The CRD, its reference page and the worker's environment variables are made from these models. A rule about two fields
or about the content of a string exists twice: in Python for the worker without Kubernetes, and beside it in CEL
(`json_schema_extra`) for the API server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from queueworker.resource.executors_spec import ExecutorsSpec
from queueworker.resource.model import Model, rule
from queueworker.resource.redis_url import DEFAULT_REDIS_URL
from queueworker.resource.urls import HttpUrl, RedisUrl


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


class Recovery(StrEnum):
    RETRY = "Retry"
    FAIL = "Fail"


class EventFormat(StrEnum):
    LEGACY = "Legacy"
    CLOUD_EVENTS = "CloudEvents"


class JournalPolicy(StrEnum):
    PREFERRED = "Preferred"
    REQUIRED = "Required"


_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


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


# With the default of one second, maxBackoffSeconds: 0 goes on to mean "no backoff". `has`: the default {} is checked.
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
        "5xx status); 1 means no retry. A task that certainly did not start uses up no attempt. Default: 1.",
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
