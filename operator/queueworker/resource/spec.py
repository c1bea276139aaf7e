"""The spec of a QueueWorker."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Strategy(StrEnum):
    RANDOM = "Random"
    ROUND_ROBIN = "RoundRobin"
    LEAST_LOADED = "LeastLoaded"
    WEIGHTED = "Weighted"
    STICKY = "Sticky"


class StickyKey(StrEnum):
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


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class SecretKeyRef(_Model):
    name: str
    key: str


class QueueSpec(_Model):
    url: str = "http://queue:8081"
    api_key_secret_ref: SecretKeyRef | None = None
    poll_interval_seconds: int = 1


class ServiceRef(_Model):
    name: str
    port: str = "http"


class HealthCheckSpec(_Model):
    path: str = "/health"
    timeout_seconds: int = 2
    period_seconds: int = 5
    max_age_seconds: int = 1
    failure_threshold: int = 1
    success_threshold: int = 1


class ExecutorsSpec(_Model):
    count: int = 1
    base_url: str = Field("http://executor", alias="baseURL")
    port: int = 8083
    endpoints: tuple[str, ...] = ()
    service: ServiceRef | None = None
    concurrency: int = 1
    health_check: HealthCheckSpec = HealthCheckSpec()
    when_unavailable: WhenUnavailable = WhenUnavailable.FAIL
    unavailable_grace_seconds: int = 10


class RetrySpec(_Model):
    attempts: int = 1
    backoff_seconds: int = 1
    max_backoff_seconds: int = 30


class RoutingSpec(_Model):
    strategy: Strategy = Strategy.RANDOM
    sticky_key: StickyKey = StickyKey.CODE
    task_timeout_seconds: int = 30
    retry: RetrySpec = RetrySpec()
    recovery: Recovery = Recovery.RETRY
    drain_seconds: int = 30
    journal: JournalPolicy = JournalPolicy.PREFERRED


class EventsSpec(_Model):
    redis_url: str | None = Field(None, alias="redisURL")
    redis_url_secret_ref: SecretKeyRef | None = Field(None, alias="redisURLSecretRef")


class MigrationSpec(_Model):
    celery_percent: int = 50
    force_legacy_queue: bool = False


class QueueWorkerSpec(_Model):
    suspend: bool = False
    queue: QueueSpec = QueueSpec()
    executors: ExecutorsSpec = ExecutorsSpec()
    routing: RoutingSpec = RoutingSpec()
    events: EventsSpec = EventsSpec()
    migration: MigrationSpec = MigrationSpec()
