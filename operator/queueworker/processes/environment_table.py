"""The table of the worker's environment variables.

Each variable sets one field of `WorkerModel`: a field of the object's spec, or one that only a process has. The
field's own type, bounds, default and description apply, so the worker and the object cannot differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from queueworker.processes.logs import LogFormat, LogLevel
from queueworker.resource.redis_url import DEFAULT_REDIS_URL, InvalidRedisUrl, redis_target
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.resource.urls import UNUSABLE_URL
from queueworker.web.options import MIN_TOKEN_CHARS, Failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

_DEFAULT = re.compile(r" Default: (\S+)\.$")


def _header_safe(key: SecretStr | None) -> SecretStr | None:
    if key is not None and not all("!" <= c <= "~" for c in key.get_secret_value()):
        raise ValueError("an HTTP header cannot carry it")
    return key


def _redis_url(url: str) -> str:
    try:
        redis_target(url, local=True)
    except InvalidRedisUrl as error:
        raise PydanticCustomError(UNUSABLE_URL, "{error}", {"error": str(error)}) from error
    return url


class Process(BaseModel):
    """Settings of a worker process that an object's spec does not have."""

    model_config = ConfigDict(frozen=True)

    worker_id: str = Field(
        "queue-worker-1", max_length=253, description="The worker's name in /status and in the journal."
    )
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        DEFAULT_REDIS_URL, description="URL of the Redis for events and the journal."
    )
    api_key: Annotated[SecretStr | None, AfterValidator(_header_safe)] = Field(
        None, description="The queue's API key, sent in the header X-API-Key. If not set, no key is sent."
    )
    celery_enabled: bool = Field(False, description="If false, CELERY_PERCENTAGE counts as 0.")
    celery_percentage: float = Field(
        0.5,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the platform's traffic that goes to Celery instead of this queue. At 1.0 the worker "
        "drains and stands by; below 1.0 it routes everything that the queue hands out.",
    )
    journal_group: str | None = Field(
        None,
        max_length=253,
        pattern=r"^[^/\s]+/[^/\s]+$",
        description="Workers of one group recover each other's tasks when one of them dies. If not set: worker/ "
        "followed by host and port of the queue, so that a worker finds its tasks after a restart under another "
        "HOSTNAME.",
    )
    memory_budget_mebibytes: int | None = Field(
        None,
        ge=16,
        le=1024 * 1024,
        description="What tasks, results and events may take in memory, in mebibytes; above it nothing is pulled. "
        "If not set: half of the container's memory limit, or 512 without one.",
    )
    host: str = Field(
        "::",
        description="Address that the HTTP API listens on. `::` stands for all addresses, of IPv4 too, and works "
        "without IPv6.",
    )
    port: int = Field(8084, ge=0, le=65535, description="TCP port of the HTTP API; 0 takes any free port.")
    web_failures: Failures = Field(
        Failures.FULL,
        description="What the page and the HTTP API show of failed tasks without a login: all, all but the errors, or "
        "nothing.",
    )
    web_allow_actions: bool = Field(
        False, description="Whether failed tasks can be sent again on the page. Needs WEB_TOKEN or WEB_TOKEN_FILE."
    )
    web_token: SecretStr | None = Field(None, description="The token that the page asks for before it sends a task.")
    web_token_file: str | None = Field(
        None, max_length=4096, description="File that holds the token, in place of WEB_TOKEN."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="Lowest level that is logged.")
    log_format: LogFormat = Field(LogFormat.TEXT, description="Format of a log line.")


class WorkerModel(BaseModel):
    """Everything that the environment can set."""

    model_config = ConfigDict(frozen=True)

    process: Process = Process()
    spec: QueueWorkerSpec = QueueWorkerSpec()


def url_list(value: str) -> list[str]:
    """Split at commas. An executor that is listed twice counts once. Raises ValueError for a list of nothing."""
    found = list(dict.fromkeys(part.strip().rstrip("/") for part in value.split(",") if part.strip()))
    if not found:
        raise ValueError
    return found


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that sets the field of `WorkerModel` at `path`."""

    name: str
    path: str
    text: str = ""
    """Replaces the field's description, where the description uses Kubernetes' names."""
    permitted: str = ""
    """Replaces what the field's type and bounds say about permitted values."""
    parse: Callable[[str], object] | None = None
    secret: bool = False
    """The value is never shown."""
    may_be_service_link: bool = False
    """Kubernetes may set it for a Service; it then counts as not set."""

    @property
    def field(self) -> FieldInfo:
        *models, last = self.path.split(".")
        model: type[BaseModel] = WorkerModel
        for name in models:
            annotation = model.model_fields[name].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
        return model.model_fields[last]

    @property
    def type(self) -> Any:
        """The field's type with its bounds, and with the conversion from an environment's text."""
        annotation: Any = self.field.annotation
        parse = self.parse or _parser(annotation)
        return Annotated[annotation, *self.field.metadata, BeforeValidator(parse)]

    @property
    def default(self) -> str:
        """The default as a person writes it; empty if there is none."""
        value = self.field.default
        if value is None or value == ():
            return ""
        return str(value).lower() if isinstance(value, bool) else str(value)

    @property
    def meaning(self) -> str:
        return self.text or _DEFAULT.sub("", self.field.description or "")

    @property
    def may_be(self) -> str:
        """The permitted values, as they follow "must be" in an error."""
        if self.permitted:
            return self.permitted
        annotation: Any = self.field.annotation
        if _is_enum(annotation):
            *others, last = [member.value for member in annotation]
            return f"{', '.join(others)} or {last}"
        if annotation is bool:
            return "true or false"
        low = next(m.ge for m in self.field.metadata if isinstance(m, annotated_types.Ge))
        high = next(m.le for m in self.field.metadata if isinstance(m, annotated_types.Le))
        return f"an integer from {low} to {high}"


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, StrEnum)


def _parser(annotation: Any) -> Callable[[str], object]:
    if _is_enum(annotation):
        return _fold_case(annotation)
    return _integer if annotation is int else lambda value: value


def _integer(value: str) -> str:
    """Refuses 3.0, which pydantic takes for an integer."""
    if "." in value:
        raise ValueError
    return value


def _fold_case(members: type[StrEnum]) -> Callable[[str], str]:
    """Accept `random` for Random: environments do not agree on upper and lower case."""
    return lambda value: next((m.value for m in members if m.value.lower() == value.lower()), value)


_HTTP = "an http:// or https:// URL with a host, for example"

LEGACY: tuple[Variable, ...] = (
    Variable("QUEUE_SERVICE_URL", "spec.queue.url", permitted=f"{_HTTP} http://queue:8081"),
    Variable(
        "REDIS_URL",
        "process.redis_url",
        permitted="a redis://, rediss:// or unix:// URL, for example redis://redis:6379",
        secret=True,
    ),
    Variable(
        "EXECUTOR_COUNT",
        "spec.executors.count",
        "Number of numbered executors, executor-1 … executor-N. Ignored with EXECUTOR_ENDPOINTS.",
    ),
    Variable(
        "EXECUTOR_BASE_URL",
        "spec.executors.base_url",
        permitted=f"{_HTTP} http://executor, without a port, or a template with {{n}}, for example http://gateway:9000/{{n}}",
    ),
    Variable("FORCE_LEGACY_QUEUE", "spec.migration.force_legacy_queue", "Route regardless of CELERY_PERCENTAGE."),
    Variable("HOSTNAME", "process.worker_id", permitted="a name of at most 253 characters"),
    Variable(
        "QUEUE_API_KEY",
        "process.api_key",
        permitted="visible ASCII characters with no space between them",
        secret=True,
    ),
    Variable("CELERY_ENABLED", "process.celery_enabled"),
    Variable("CELERY_PERCENTAGE", "process.celery_percentage", permitted="a number from 0.0 to 1.0"),
)
"""The variables of the legacy worker."""

FURTHER: tuple[Variable, ...] = (
    Variable("POLL_INTERVAL_SECONDS", "spec.queue.poll_interval_seconds"),
    Variable("EXECUTOR_PORT", "spec.executors.port", may_be_service_link=True),
    Variable(
        "EXECUTOR_ENDPOINTS",
        "spec.executors.endpoints",
        permitted="http:// or https:// URLs with a host, separated by commas, from 1 to 200",
        parse=url_list,
    ),
    Variable("EXECUTOR_CONCURRENCY", "spec.executors.concurrency"),
    Variable("SLOW_START_SECONDS", "spec.executors.slow_start_seconds"),
    Variable(
        "HEALTH_CHECK_PATH",
        "spec.executors.health_check.path",
        permitted="a path that begins with /, in visible ASCII characters other than #; write others as in a URL (%20)",
    ),
    Variable("HEALTH_CHECK_TIMEOUT_SECONDS", "spec.executors.health_check.timeout_seconds"),
    Variable("HEALTH_CHECK_PERIOD_SECONDS", "spec.executors.health_check.period_seconds"),
    Variable("HEALTH_CHECK_MAX_AGE_SECONDS", "spec.executors.health_check.max_age_seconds"),
    Variable("HEALTH_CHECK_FAILURE_THRESHOLD", "spec.executors.health_check.failure_threshold"),
    Variable("HEALTH_CHECK_SUCCESS_THRESHOLD", "spec.executors.health_check.success_threshold"),
    Variable("WHEN_UNAVAILABLE", "spec.executors.when_unavailable"),
    Variable("UNAVAILABLE_GRACE_SECONDS", "spec.executors.unavailable_grace_seconds"),
    Variable("ROUTING_STRATEGY", "spec.routing.strategy"),
    Variable("STICKY_KEY", "spec.routing.sticky_key"),
    Variable("TASK_TIMEOUT_SECONDS", "spec.routing.task_timeout_seconds"),
    Variable("RETRY_ATTEMPTS", "spec.routing.retry.attempts"),
    Variable("RETRY_BACKOFF_SECONDS", "spec.routing.retry.backoff_seconds"),
    Variable("RETRY_MAX_BACKOFF_SECONDS", "spec.routing.retry.max_backoff_seconds"),
    Variable("RECOVERY", "spec.routing.recovery"),
    Variable("EVENTS_FORMAT", "spec.events.format"),
    Variable("DRAIN_SECONDS", "spec.routing.drain_seconds"),
    Variable("JOURNAL", "spec.routing.journal"),
    Variable("MAX_BODY_MEBIBYTES", "spec.routing.max_body_mebibytes"),
    Variable(
        "JOURNAL_GROUP",
        "process.journal_group",
        permitted="two words with a slash between them, for example default/legacy",
    ),
    Variable("MEMORY_BUDGET_MEBIBYTES", "process.memory_budget_mebibytes"),
    Variable("HOST", "process.host", permitted="an IP address or a host name of this machine"),
    Variable("PORT", "process.port"),
    Variable("WEB_FAILURES", "process.web_failures"),
    Variable("WEB_ALLOW_ACTIONS", "process.web_allow_actions"),
    Variable(
        "WEB_TOKEN",
        "process.web_token",
        permitted=f"at least {MIN_TOKEN_CHARS} printable ASCII characters",
        secret=True,
    ),
    Variable("WEB_TOKEN_FILE", "process.web_token_file", permitted="the path of a file"),
    Variable("LOG_LEVEL", "process.log_level"),
    Variable("LOG_FORMAT", "process.log_format"),
)
VARIABLES = LEGACY + FURTHER
