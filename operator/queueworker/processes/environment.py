"""The worker's environment: the legacy variables, and one for each further field of the object's spec.

A variable that stands for a field of the spec is a line of `VARIABLES`: the field's own model gives its
default, its bounds and its description, so that the worker and the object cannot come to differ. What
only a process has (its port, its logs) is in `Process`. Everything is a function of a mapping; the
process's environment comes in at the edge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from queueworker.processes.logs import LogFormat, LogLevel
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import RouterConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

SHOWN_LENGTH = 100
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Kubernetes sets <SERVICE>_PORT=tcp://… in every pod beside a Service: beside one named `executor`, EXECUTOR_PORT.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class InvalidEnvironment(Exception):
    """Variables that cannot be used; `problems` has a line for each, which names it and what it may be."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def _text(value: str) -> object:
    return value


def _url_list(value: str) -> object:
    """Comma-separated; the same executor twice is one executor."""
    return list(dict.fromkeys(part.strip().rstrip("/") for part in value.split(",") if part.strip()))


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that stands for the field of the spec at `path` (the models' own names)."""

    name: str
    path: str
    says: str = ""
    """Instead of the field's description, where that speaks of Kubernetes."""
    may_be: str = ""
    """Instead of what the field's type and bounds say."""
    parse: Callable[[str], object] = _text
    secret: bool = False
    legacy: bool = False
    is_service_link: Callable[[str], object] = lambda _value: False
    """Whether Kubernetes, and not a person, set it so; then it is as if it were not set."""

    @property
    def field(self) -> FieldInfo:
        *models, last = self.path.split(".")
        model: type[BaseModel] = QueueWorkerSpec
        for name in models:
            annotation = model.model_fields[name].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
        return model.model_fields[last]


_HTTP = "an http:// or https:// URL with a host, for example http://queue:8081"

VARIABLES: tuple[Variable, ...] = (
    Variable("QUEUE_SERVICE_URL", "queue.url", may_be=_HTTP, legacy=True),
    Variable("POLL_INTERVAL_SECONDS", "queue.poll_interval_seconds"),
    Variable(
        "REDIS_URL",
        "events.redis_url",
        may_be="a redis://, rediss:// or unix:// URL, for example redis://redis:6379",
        secret=True,
        legacy=True,
    ),
    Variable(
        "EXECUTOR_COUNT",
        "executors.count",
        says="Number of numbered executors, executor-1 … executor-N. No effect with EXECUTOR_ENDPOINTS.",
        legacy=True,
    ),
    Variable(
        "EXECUTOR_BASE_URL",
        "executors.base_url",
        may_be="an http:// or https:// URL with a host, for example http://executor",
        legacy=True,
    ),
    Variable("EXECUTOR_PORT", "executors.port", is_service_link=_SERVICE_LINK.match),
    Variable(
        "EXECUTOR_ENDPOINTS",
        "executors.endpoints",
        may_be="http:// or https:// URLs with a host, separated by commas, at most 200",
        parse=_url_list,
    ),
    Variable("EXECUTOR_CONCURRENCY", "executors.concurrency"),
    Variable("SLOW_START_SECONDS", "executors.slow_start_seconds"),
    Variable("HEALTH_CHECK_PATH", "executors.health_check.path", may_be="a path that begins with / and has no space"),
    Variable("HEALTH_CHECK_TIMEOUT_SECONDS", "executors.health_check.timeout_seconds"),
    Variable("HEALTH_CHECK_PERIOD_SECONDS", "executors.health_check.period_seconds"),
    Variable("HEALTH_CHECK_MAX_AGE_SECONDS", "executors.health_check.max_age_seconds"),
    Variable("HEALTH_CHECK_FAILURE_THRESHOLD", "executors.health_check.failure_threshold"),
    Variable("HEALTH_CHECK_SUCCESS_THRESHOLD", "executors.health_check.success_threshold"),
    Variable("WHEN_UNAVAILABLE", "executors.when_unavailable"),
    Variable("UNAVAILABLE_GRACE_SECONDS", "executors.unavailable_grace_seconds"),
    Variable("ROUTING_STRATEGY", "routing.strategy"),
    Variable("STICKY_KEY", "routing.sticky_key"),
    Variable("TASK_TIMEOUT_SECONDS", "routing.task_timeout_seconds"),
    Variable("RETRY_ATTEMPTS", "routing.retry.attempts"),
    Variable("RETRY_BACKOFF_SECONDS", "routing.retry.backoff_seconds"),
    Variable("RETRY_MAX_BACKOFF_SECONDS", "routing.retry.max_backoff_seconds"),
    Variable("RECOVERY", "routing.recovery"),
    Variable("DRAIN_SECONDS", "routing.drain_seconds"),
    Variable("JOURNAL", "routing.journal"),
    Variable("MAX_BODY_MEBIBYTES", "routing.max_body_mebibytes"),
    Variable(
        "FORCE_LEGACY_QUEUE",
        "migration.force_legacy_queue",
        says="Route whatever CELERY_PERCENTAGE says.",
        legacy=True,
    ),
)


class Process(BaseModel):
    """What a worker has beside a spec. The aliases are the variables."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker_id: str = Field(
        "queue-worker-1", alias="HOSTNAME", max_length=253, description="The worker's name in /status and the journal."
    )
    api_key: SecretStr | None = Field(
        None, alias="QUEUE_API_KEY", description="The queue's API key (header X-API-Key). Default: none is sent."
    )
    celery_enabled: bool = Field(
        False, alias="CELERY_ENABLED", description="Whether CELERY_PERCENTAGE counts: false is a percentage of 0."
    )
    celery_percentage: float = Field(
        0.5,
        alias="CELERY_PERCENTAGE",
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The share of the platform's traffic that goes to Celery, not to this queue. At 1.0 the worker "
        "drains and stands by; below it routes whatever the queue gives.",
    )
    journal_group: str | None = Field(
        None,
        alias="JOURNAL_GROUP",
        max_length=253,
        pattern=r"^[^/\s]+/[^/\s]+$",
        description="Workers of one group recover each other's tasks when one dies. Default: worker/, then host and "
        "port of the queue, so that a worker that starts again under another HOSTNAME finds its tasks.",
    )
    host: str = Field("0.0.0.0", alias="HOST", description="The address that the HTTP face listens on.")
    port: int = Field(8084, alias="PORT", ge=0, le=65535, description="Its TCP port; 0 takes any free one.")
    log_level: LogLevel = Field(LogLevel.INFO, alias="LOG_LEVEL", description="The least level that is logged.")
    log_format: LogFormat = Field(LogFormat.TEXT, alias="LOG_FORMAT", description="How a log line is written.")

    @field_validator("api_key")
    @classmethod
    def _header_safe(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not all("!" <= c <= "~" for c in key.get_secret_value()):
            raise ValueError(_PROCESS_MAY_BE["QUEUE_API_KEY"])
        return key


_PROCESS_MAY_BE = {
    "HOSTNAME": "a name of at most 253 characters",
    "QUEUE_API_KEY": "visible ASCII characters with no space between them",
    "CELERY_PERCENTAGE": "a number from 0.0 to 1.0",
    "JOURNAL_GROUP": "two words with a slash between them, for example default/legacy",
    "HOST": "an IP address or a host name of this machine",
}
_PROCESS_SECRETS = {"QUEUE_API_KEY"}
_PROCESS_LEGACY = {"HOSTNAME", "QUEUE_API_KEY", "CELERY_ENABLED", "CELERY_PERCENTAGE"}


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All that `queueworker worker` is told."""

    process: Process
    config: RouterConfig
    notes: tuple[str, ...] = ()
    """Sentences to log once there is a log."""


def load(environ: Mapping[str, str]) -> WorkerSettings:
    """Read the variables; those of others are ignored, and an empty one is as if it were not set.

    Raises InvalidEnvironment with every problem, not only the first.
    """
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    links = [v.name for v in VARIABLES if v.is_service_link(given.get(v.name, ""))]
    notes = [f"{name}={given.pop(name)} is ignored: Kubernetes set it for a Service" for name in links]
    problems: dict[str, str] = {}
    process, spec = Process(), QueueWorkerSpec()
    try:
        process = Process.model_validate({n: _fold(n, v, Process.model_fields) for n, v in given.items()})
    except ValidationError as error:
        problems |= _process_problems(error, given)
    try:
        spec = QueueWorkerSpec.model_validate(_nested(given))
    except ValidationError as error:
        problems |= _spec_problems(error, given)
    if "REDIS_URL" in given and "REDIS_URL" not in problems:
        problems |= _redis_problems(given["REDIS_URL"])
    if problems:
        raise InvalidEnvironment(problems[v.name] for v in described() if v.name in problems)
    return WorkerSettings(process, _config(process, spec), tuple(notes))


def _config(process: Process, spec: QueueWorkerSpec) -> RouterConfig:
    # Down, never up: 0.999 of the traffic is not all of it, and only all of it means standby. The rounding
    # before it takes away what binary fractions add (0.29 * 100 is 28.999999999999996).
    percent = int(round(process.celery_percentage * 100, 6)) if process.celery_enabled else 0
    migration = spec.migration.model_copy(update={"celery_percent": percent})
    return RouterConfig(
        group=process.journal_group or journal_group(spec.queue.url),
        spec=spec.model_copy(update={"migration": migration}),
        redis_url=spec.events.effective_redis_url,
        api_key=process.api_key.get_secret_value() if process.api_key else None,
    )


def journal_group(queue_url: str) -> str:
    """The group of the workers of one queue: it must be the same under another HOSTNAME."""
    parts = urlsplit(queue_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    path = parts.path.rstrip("/").replace("/", "-")
    return f"worker/{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}{path}"


def _nested(given: Mapping[str, str]) -> dict[str, Any]:
    """The spec that the variables describe, as an object would bring it."""
    found: dict[str, Any] = {}
    for variable in VARIABLES:
        if variable.name in given:
            *models, last = variable.path.split(".")
            node = found
            for name in models:
                node = node.setdefault(name, {})
            node[last] = _fold_case(variable.parse(given[variable.name]), variable.field)
    return found


def _fold(name: str, value: str, fields: Mapping[str, FieldInfo]) -> object:
    return next((_fold_case(value, field) for field in fields.values() if field.alias == name), value)


def _fold_case(value: object, field: FieldInfo) -> object:
    """`random` is Random: what is written in capitals elsewhere in an environment need not be exact here."""
    if _is_enum(field) and isinstance(value, str):
        assert field.annotation is not None
        return next((m.value for m in field.annotation if m.value.lower() == value.lower()), value)
    return value


def _is_enum(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum)


# --- what is wrong, in words


def _process_problems(error: ValidationError, given: Mapping[str, str]) -> dict[str, str]:
    known = {v.name: v for v in described()}
    names = [str(e["loc"][0]) for e in error.errors()]
    return {n: _problem(n, given.get(n), known[n].may_be, secret=n in _PROCESS_SECRETS) for n in names}


def _spec_problems(error: ValidationError, given: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for details in error.errors():
        variable = _at(details)
        value = details["input"] if variable.parse is _url_list else given.get(variable.name)
        may_be = variable.may_be or _may_be(variable.field)
        line = _problem(variable.name, value, may_be, secret=variable.secret)
        found.setdefault(variable.name, line)
    return found


def _at(details: ErrorDetails) -> Variable:
    """The variable that an error of the spec is about; a list's item belongs to the list."""
    where = [str(part) for part in details["loc"]]
    for variable in VARIABLES:
        names = _aliases(variable.path)
        if where[: len(names)] == names or where[: len(names)] == variable.path.split("."):
            return variable
    raise AssertionError(f"no variable stands for {'.'.join(where)}: {details['msg']}")


def _aliases(path: str) -> list[str]:
    """The path as pydantic spells it in an error: by alias."""
    found = []
    model: Any = QueueWorkerSpec
    for name in path.split("."):
        field = model.model_fields[name]
        found.append(field.alias or name)
        model = field.annotation
    return found


def _redis_problems(url: str) -> dict[str, str]:
    """What redis-py would refuse later: a database that is no number, an option that it does not know how to read."""
    from redis.asyncio.connection import parse_url  # noqa: PLC0415

    try:
        parse_url(url)
    except ValueError as error:
        return {"REDIS_URL": f"REDIS_URL (value not shown): redis-py cannot read it: {error}"}
    return {}


def _problem(name: str, value: object, may_be: str, *, secret: bool) -> str:
    """`secret`: the value is not shown; nor is one that may hold a password in front of an @."""
    text = value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list | tuple) else ""
    shown = f"{name} (value not shown)" if secret or "@" in text else f"{name}={text[:SHOWN_LENGTH]!r}"
    return f"{shown}: must be {may_be}"


# --- the reference


class Described(NamedTuple):
    """A variable as a person reads of it."""

    name: str
    default: str
    may_be: str
    meaning: str
    legacy: bool


def described() -> list[Described]:
    """Every variable, the legacy worker's first."""
    found = [
        Described(
            v.name,
            _default(v.field),
            v.may_be or _may_be(v.field),
            v.says or _without_default(v.field.description or ""),
            v.legacy,
        )
        for v in VARIABLES
    ]
    for field in Process.model_fields.values():
        name = field.alias or ""
        found.append(
            Described(
                name,
                _default(field),
                _PROCESS_MAY_BE.get(name) or _may_be(field),
                field.description or "",
                name in _PROCESS_LEGACY,
            )
        )
    return sorted(found, key=lambda d: not d.legacy)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        # The one default that the schema leaves to the code; its description has it.
        found = re.search(r"Default: (\S+)\.$", field.description or "")
        return found[1] if found and "://" in found[1] else ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without_default(description: str) -> str:
    return re.sub(r" Default: [^.]*(\.\d+)?\.$|Default: \S+\.$", "", description).strip()


def _may_be(field: FieldInfo) -> str:
    if _is_enum(field):
        assert field.annotation is not None
        *others, last = [m.value for m in field.annotation]
        return f"{', '.join(others)} or {last}"
    if field.annotation is bool:
        return "true or false"
    low = next((m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)), None)
    high = next((m.le for m in field.metadata if isinstance(m, annotated_types.Le)), None)
    return f"an integer from {low} to {high}"
