"""Reads JSON from outside: strictly first, because it is fast; then as other JSON libraries would."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

import msgspec
import orjson

Fields = TypeVar("Fields")
_EXCERPT_CHARS = 300
_GZIP = b"\x1f\x8b"
# Python reads and writes no longer integers, because that takes a time that grows with the square of their length.
_MAX_DIGITS = 4300
_ID_AT_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"eval_id"\s*:\s*"([^"\\\x00-\x1f\x80-\xff]*)"')


class InvalidAnswer(Exception):
    """An answer is not what docs/wire.md says. The message shows how it begins."""


class TooDeep(InvalidAnswer):
    """JSON that is nested more deeply than we, and most libraries, can read."""


def excerpt(body: bytes) -> str:
    """The beginning of a body, fit for an error message."""
    if body.startswith(_GZIP):
        return describe(body)
    text = body[: 4 * _EXCERPT_CHARS].decode("utf-8", "replace")
    return text if len(text) <= _EXCERPT_CHARS else text[:_EXCERPT_CHARS] + "…"


def read_strictly(body: bytes, decoder: msgspec.json.Decoder[Fields]) -> Fields:
    """Decode a body. Raises ValueError (msgspec's errors are) or RecursionError.

    msgspec passes over the fields that it does not keep without a check of their UTF-8.
    """
    fields = decoder.decode(body)
    if not body.isascii():
        body.decode()
    return fields


def read_object_as(body: bytes, decoder: msgspec.json.Decoder[Fields]) -> tuple[Fields, bytes]:
    """The fields of a JSON object, and the object; written again if only lenient readers take it.

    Raises `InvalidAnswer`.
    """
    try:
        return read_strictly(body, decoder), body
    except (ValueError, RecursionError):
        value = read_leniently(body)
        if not isinstance(value, dict):
            raise InvalidAnswer(f"no object: {excerpt(body)}") from None
        body = write_for_all(value)
    try:
        return decoder.decode(body), body
    except (ValueError, RecursionError) as error:
        raise InvalidAnswer(f"an object that cannot be read: {excerpt(body)}") from error


def read_leniently(body: bytes) -> Any:
    """What `json.loads` makes of a body: half surrogate pairs, NaN, control characters, a byte order mark are taken.
    An integer of more than 4,300 digits is an infinity.

    Raises `InvalidAnswer`.
    """
    try:
        return json.loads(body.decode("utf-8-sig", "replace"), strict=False, parse_int=_integer)
    except RecursionError as error:
        raise TooDeep(f"JSON that is nested too deeply: {excerpt(body)}") from error
    except ValueError as error:
        raise InvalidAnswer(f"no JSON: {excerpt(body)}") from error


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def id_at_start(body: bytes) -> str | None:
    """The `eval_id` of an object that begins with it, as most do, without reading the rest; None if it does not."""
    found = _ID_AT_START.match(body)
    return None if found is None else found[1].decode()


def write_for_all(value: Any) -> bytes:
    """JSON that every library reads, of a value as `cleaned` makes it. Raises `TooDeep`."""
    try:
        return json.dumps(cleaned(value), allow_nan=False, separators=(",", ":")).encode()
    except RecursionError as error:
        raise TooDeep("JSON that is nested too deeply") from error


def cleaned(value: Any) -> Any:
    """The value with U+FFFD for half surrogate pairs, and null for NaN and the infinities. Raises `TooDeep`."""
    try:
        return _cleaned(value)
    except RecursionError as error:
        raise TooDeep("JSON that is nested too deeply") from error


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


def as_text(value: Any) -> str:
    """Text as it is, and any other value as JSON: an executor's error may be an object."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(cleaned(value), ensure_ascii=False)
    except (TooDeep, RecursionError):
        return "JSON that is nested too deeply"


def describe(body: bytes) -> str:
    """Kind and length of a body, fit for status and Events: its text may hold anything, and is not shown there."""
    if body.startswith(_GZIP):
        return f"compressed by gzip, {len(body):,} bytes"
    start = body[:64].lstrip()[:1]
    kinds = {b"": "an empty body", b"<": "HTML", b"{": "JSON", b"[": "JSON", b'"': "JSON"}
    kind = kinds.get(start, "text")
    return kind if kind == "an empty body" else f"{kind}, {len(body):,} bytes"


def is_html(body: bytes) -> bool:
    return body[:64].lstrip()[:1] == b"<"


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that the body is; None when it is something else."""
    try:
        value = orjson.loads(body)
    except ValueError:
        try:
            value = read_leniently(body)
        except InvalidAnswer:
            return None
    return value if isinstance(value, dict) else None


def last_line(text: str, most: int) -> str:
    """The last line of an error that says something: of a traceback, the one with the exception."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    line = lines[-1].strip() if lines else ""
    return line if len(line) <= most else line[:most] + "…"
