"""Reads the worker's settings from its environment.

A model made from the table of variables validates the values, so the location of an error is the variable itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from queueworker.processes.environment_table import VARIABLES, Process, Variable, WorkerModel
from queueworker.processes.notes import ignored_proxies, is_service_link, misspelt
from queueworker.processes.tracing_settings import read_tracing
from queueworker.resource.urls import UNUSABLE_URL, host_in_url
from queueworker.routing.config import RouterConfig
from queueworker.web.options import MIN_TOKEN_CHARS, WebOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from pydantic_core import ErrorDetails

    from queueworker.processes.tracing_settings import TracingSettings

SHOWN_LENGTH = 100
_DEFAULT_PORTS = {"http": 80, "https": 443}


class InvalidEnvironment(Exception):
    """`problems` has one line for each unusable variable: its name, its value and the permitted values."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of `queueworker worker`."""

    process: Process
    config: RouterConfig
    web: WebOptions
    tracing: TracingSettings | None = None
    """None: off."""
    notes: tuple[str, ...] = ()
    """Warnings to log once logging is configured."""


# Variables that are not set do not appear in the validated model, so no default is needed here.
_Environment: type[BaseModel] = create_model(
    "_Environment",
    __config__=ConfigDict(extra="ignore", hide_input_in_errors=True),
    **{v.name: (v.type, Field(None)) for v in VARIABLES},  # type: ignore[call-overload]
)


def strip_variables(environ: MutableMapping[str, str]) -> None:
    """Remove the blanks around the values of the table, as `load` does, for commands whose options read them."""
    for name in environ.keys() & {v.name for v in VARIABLES}:
        environ[name] = environ[name].strip()


def load(environ: Mapping[str, str]) -> WorkerSettings:
    """Read the variables of the table. Other variables are ignored; an empty variable counts as not set.

    Raises InvalidEnvironment with every problem, not only the first.
    """
    given = {v.name: value for v in VARIABLES if (value := environ.get(v.name, "").strip())}
    links = [v.name for v in VARIABLES if v.may_be_service_link and is_service_link(given.get(v.name, ""))]
    notes = [f"{name}={given.pop(name)} is ignored: Kubernetes set it for a Service" for name in links]
    notes += [*misspelt(environ, [v.name for v in VARIABLES]), *ignored_proxies(environ)]
    problems: tuple[str, ...] = ()
    values: dict[str, object] = {}
    try:
        values = _Environment.model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        problems = _problems(error, given)
    if problems:
        raise InvalidEnvironment(problems)
    model = WorkerModel.model_validate(_nested(values))
    tracing, refused = read_tracing(environ)
    notes += refused
    return WorkerSettings(model.process, _config(model), web_options(model.process), tracing, tuple(notes))


def load_web(environ: Mapping[str, str]) -> WebOptions:
    """The operator's part of the variables. Raises InvalidEnvironment."""
    names = [v.name for v in VARIABLES if v.name.startswith("WEB_")]
    return load({name: environ.get(name, "") for name in names}).web


def web_options(process: Process) -> WebOptions:
    """With the token, if actions are allowed. Raises InvalidEnvironment without one."""
    if not process.web_allow_actions:
        return WebOptions(process.web_failures)
    token = process.web_token.get_secret_value() if process.web_token else ""
    if process.web_token_file:
        try:
            token = Path(process.web_token_file).read_text("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidEnvironment([f"WEB_TOKEN_FILE={process.web_token_file!r} cannot be read: {error}"]) from error
    if len(token) < MIN_TOKEN_CHARS or not (token.isascii() and token.isprintable()):
        text = f"set WEB_TOKEN or WEB_TOKEN_FILE to a token of at least {MIN_TOKEN_CHARS} printable ASCII characters"
        raise InvalidEnvironment([f"WEB_ALLOW_ACTIONS=true: {text}"])
    return WebOptions(process.web_failures, token)


def _nested(values: Mapping[str, object]) -> dict[str, Any]:
    """The values by the paths of their fields."""
    found: dict[str, Any] = {}
    for variable in VARIABLES:
        if variable.name in values:
            *models, last = variable.path.split(".")
            node = found
            for name in models:
                node = node.setdefault(name, {})
            node[last] = values[variable.name]
    return found


def _config(model: WorkerModel) -> RouterConfig:
    process, spec = model.process, model.spec
    # Rounded down, never up: only 100 % means standby, and 0.999 is less. Decimal, because 0.29 * 100 is
    # 28.999999999999996 in binary fractions.
    percent = int(Decimal(str(process.celery_percentage)) * 100) if process.celery_enabled else 0
    migration = spec.migration.model_copy(update={"celery_percent": percent})
    return RouterConfig(
        group=process.journal_group or journal_group(spec.queue.url),
        spec=spec.model_copy(update={"migration": migration}),
        redis_url=process.redis_url,
        api_key=process.api_key.get_secret_value() if process.api_key else None,
    )


def journal_group(queue_url: str) -> str:
    """The default group of the workers of a queue. It does not depend on HOSTNAME."""
    parts = urlsplit(queue_url)
    host = host_in_url(parts.hostname or "")
    path = parts.path.rstrip("/").replace("/", "-")
    return f"worker/{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}{path}"


def _problems(error: ValidationError, given: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each variable that cannot be used, in the order of the table."""
    first: dict[str, ErrorDetails] = {}
    for details in error.errors():
        first.setdefault(str(details["loc"][0]), details)
    return tuple(_problem(v, first[v.name], given[v.name]) for v in VARIABLES if v.name in first)


def _problem(variable: Variable, details: ErrorDetails, value: str) -> str:
    """A location below the variable means an item of a list; only that item is shown."""
    text = str(details["input"]) if len(details["loc"]) > 1 else value
    # A value with an @ may hold a password, and an item of a list a piece of it, up to a comma.
    hidden = variable.secret or "@" in value
    shown = f"{variable.name} (value not shown)" if hidden else f"{variable.name}={text[:SHOWN_LENGTH]!r}"
    reason = details["msg"] if details["type"] == UNUSABLE_URL else f"must be {variable.may_be}"
    return f"{shown}: {reason}"
