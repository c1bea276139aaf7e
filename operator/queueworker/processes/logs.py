"""Structured logs on standard error: one line for each event, as text or as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from queueworker.processes.log_output import LogOutput
from queueworker.redaction import without_credentials, without_credentials_in_json

if TYPE_CHECKING:
    from collections.abc import Mapping


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @classmethod
    def _missing_(cls, value: object) -> LogLevel | None:
        """Python's other names, in any case."""
        name = str(value).lower()
        return cls.__members__.get({"warn": "WARNING", "fatal": "CRITICAL", "notset": "DEBUG"}.get(name, name.upper()))


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


# Attributes that every record has. All others came with `extra=` and are fields of the event.
_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "color_message"}
# Extra attributes of kopf: the object of an event, and how kopf posts it.
_KOPF_OBJECT, _KOPF_OWN = "k8s_ref", {"k8s_ref", "k8s_skip", "settings"}


MAX_MESSAGE_CHARS = 8192
"""Of one message: it may name a task by an id of any length."""
# A message may quote the answer of a peer, which must be able neither to forge a log line nor to move a cursor.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\t")}
_ESCAPED = _CONTROLS | {ord("\n"): "\\n", ord("\r"): "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def _bounded(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE_CHARS else f"{message[:MAX_MESSAGE_CHARS]}…"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = {k: v for k, v in record.__dict__.items() if k not in _STANDARD and k not in _KOPF_OWN}
    reference = record.__dict__.get(_KOPF_OBJECT)
    if isinstance(reference, dict):
        found["object"] = f"{reference.get('namespace', '')}/{reference.get('name', '')}"
    return found


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object for each line. `time` is RFC 3339 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _bounded(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        try:
            line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")
        except TypeError:  # half a surrogate pair, or an integer above 64 bits
            line = json.dumps(event, default=str)
        return without_credentials_in_json(line)


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value`, followed by the lines of a traceback, if any."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return _bounded(super().formatMessage(record) + fields).translate(_ESCAPED)


class ColourFormatter(TextFormatter):
    """As `TextFormatter`, with the level in colour and what is less important dim."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        colour = _COLOURS.get(record.levelno, "")
        level = f"{record.levelname:<7}"
        return line.replace(f" {level} {record.name}: ", f" {colour}{level}\x1b[0m \x1b[2m{record.name}:\x1b[0m ", 1)


_COLOURS = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[36m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


def has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """A terminal, unless NO_COLOR or TERM=dumb says otherwise."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def configure(level: LogLevel, form: LogFormat) -> None:
    """Configure the root logger, replacing earlier configuration."""
    handler = LogOutput(sys.stderr)
    text = ColourFormatter if has_colours(sys.stderr, os.environ) else TextFormatter
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # At info, these libraries log each connection.
    for library in ("uvicorn", "asyncio", "urllib3", "kubernetes", "aiohttp"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
