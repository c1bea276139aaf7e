"""Whether and how spans are exported, by the standard OTEL_… variables. The one place that decides on or off.

What cannot be used turns tracing off with a warning: a wrong collector is no reason to route nothing.
"""

from __future__ import annotations

import contextlib
import logging
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from queueworker.redaction import without_credentials
from queueworker.resource.urls import HttpUrl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.config import JsonDict

    from queueworker.routing.tracer import Tracer

log = logging.getLogger(__name__)

PREFIX = "OTEL_EXPORTER_OTLP_"
TRACES_PREFIX = f"{PREFIX}TRACES_"
"""A variable with this prefix counts before the one that is for all signals."""
TRACES_PATH = "/v1/traces"
SHOWN_LENGTH = 100
_SECRET = f"{PREFIX}HEADERS"
_PAIR = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*([ -+\--~]*)")


class Sampler(StrEnum):
    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    RATIO = "traceidratio"
    PARENT_OR_ON = "parentbased_always_on"
    PARENT_OR_OFF = "parentbased_always_off"
    PARENT_OR_RATIO = "parentbased_traceidratio"


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"


def _headers(value: str) -> dict[str, str]:
    """`name=value` pairs between commas, percent-encoded."""
    pairs = [_PAIR.fullmatch(part.strip()) for part in value.split(",") if part.strip()]
    found = {pair[1].lower(): unquote(pair[2].strip()) for pair in pairs if pair is not None}
    if None in pairs or not all(text.isascii() and text.isprintable() for text in found.values()):
        raise ValueError
    return found


def _file(path: str) -> str:
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise ValueError from error
    return path


def _lower(value: str) -> str:
    return value.lower()


_FILE = "the path of a file in PEM format that can be read"
_File = Annotated[str | None, AfterValidator(_file)]


def _field(default: Any, name: str, may_be: str, description: str) -> Any:
    extra: JsonDict = {"may_be": may_be}
    return Field(default, alias=name, description=description, json_schema_extra=extra, repr=name != _SECRET)


class TracingSettings(BaseModel):
    """Aliases are the names of the variables."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    endpoint: HttpUrl = _field(
        "",
        f"{PREFIX}ENDPOINT",
        "an http:// or https:// URL with a host, for example http://collector:4318",
        f"The receiver of spans; `{TRACES_PATH}` is appended. Without it, tracing is off.",
    )
    protocol: Annotated[str, Field(pattern="^http/protobuf$")] = _field(
        "http/protobuf", f"{PREFIX}PROTOCOL", "http/protobuf (usually on port 4318)", "How spans are sent."
    )
    headers: Annotated[dict[str, str], BeforeValidator(_headers)] = _field(
        {},
        _SECRET,
        "name=value pairs, percent-encoded, separated by commas",
        "Headers of each request to the receiver, such as a key. They are never shown.",
    )
    certificate: _File = _field(
        None,
        f"{PREFIX}CERTIFICATE",
        _FILE,
        "Authorities that the receiver's certificate is verified by. If not set: those of all other connections.",
    )
    client_certificate: _File = _field(
        None, f"{PREFIX}CLIENT_CERTIFICATE", _FILE, "Certificate that the receiver is shown."
    )
    client_key: _File = _field(None, f"{PREFIX}CLIENT_KEY", _FILE, "Key of that certificate.")
    compression: Annotated[Compression, BeforeValidator(_lower)] = _field(
        Compression.NONE, f"{PREFIX}COMPRESSION", "none, gzip or deflate", "Compression of the requests."
    )
    sampler: Annotated[Sampler, BeforeValidator(_lower)] = _field(
        Sampler.PARENT_OR_ON,
        "OTEL_TRACES_SAMPLER",
        ", ".join(list(Sampler)[:-1]) + f" or {list(Sampler)[-1]}",
        "Which tasks have spans. With `parentbased_…`, the task's own `traceparent` decides if it has one.",
    )
    ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = _field(
        1.0, "OTEL_TRACES_SAMPLER_ARG", "a number from 0.0 to 1.0", "Share of the traces, for the samplers by ratio."
    )


FIELDS = TracingSettings.model_fields


def read_tracing(environ: Mapping[str, str]) -> tuple[TracingSettings | None, tuple[str, ...]]:
    """None if tracing is off. The second part has a warning for each variable that cannot be used."""
    given = {str(field.alias): _value(environ, str(field.alias)) for field in FIELDS.values()}
    given = {name: value for name, value in given.items() if value}
    if FIELDS["endpoint"].alias not in given or _off(environ):
        return None, ()
    try:
        return TracingSettings.model_validate(given), ()
    except ValidationError as error:
        return None, tuple(_problems(error, environ))


def tracing(
    settings: TracingSettings | None, service: str, instance: str
) -> contextlib.AbstractAsyncContextManager[Tracer | None]:
    """Use around the routers of the process. The SDK is loaded only here, and only if tracing is on."""
    if settings is None:
        return contextlib.nullcontext()
    try:
        from queueworker.processes.tracing import Tracing  # noqa: PLC0415 -- it loads the SDK

        started = Tracing(settings, service, instance)
    except ValueError as error:  # the SDK reads variables of its own, and names the one that it cannot use
        log.warning("tracing is off: %s", error)
        return contextlib.nullcontext()
    except Exception:
        log.exception("tracing is off, because it could not be started")
        return contextlib.nullcontext()
    log.info("tracing: spans go to %s, sampled by %s", without_credentials(settings.endpoint), settings.sampler)
    return started


def _value(environ: Mapping[str, str], name: str) -> str:
    own = environ.get(name.replace(PREFIX, TRACES_PREFIX), "").strip()
    value = own or environ.get(name, "").strip()
    if name == FIELDS["endpoint"].alias and value and not own:
        return value.rstrip("/") + TRACES_PATH
    return value


def _off(environ: Mapping[str, str]) -> bool:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _problems(error: ValidationError, environ: Mapping[str, str]) -> Iterable[str]:
    for name in dict.fromkeys(str(details["loc"][0]) for details in error.errors()):
        own = name.replace(PREFIX, TRACES_PREFIX)
        read = own if environ.get(own, "").strip() else name
        value = without_credentials(environ[read])
        hidden = name == _SECRET or "@" in value  # what is left of a password that a URL cannot have
        shown = f"{read} (value not shown)" if hidden else f"{read}={value[:SHOWN_LENGTH]!r}"
        yield f"tracing is off: {shown}: must be {may_be(name)}"


def may_be(name: str) -> str:
    """The permitted values of a variable, as they follow "must be"."""
    (extra,) = (field.json_schema_extra for field in FIELDS.values() if field.alias == name)
    assert isinstance(extra, dict)
    return str(extra["may_be"])
