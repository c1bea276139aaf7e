"""Large bodies: they go out in the pieces that they came in, and are read in steps, so that others have their turn.

What makes a body large is, nearly always, a few long strings. They are cut out and looked at window by window; what
is left of the body is small, and read as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import orjson

if TYPE_CHECKING:
    from collections.abc import Generator

# From this size on a body is not copied, nor read but for what the router itself needs of it: either would hold up
# everybody's tasks.
LARGE_BYTES = 1024 * 1024
# Of a string, in one step.
WINDOW_BYTES = 128 * 1024
SHORT_STRING_BYTES = 4096
# Where there are more, it is no long strings that make the body large: the rest of it is read at once.
MOST_SHORT_STRINGS = 100

_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
# An escape has 6 bytes, one of two surrogates 12.
_LONGEST_ESCAPE = 12
# What stands in the place of a string that was cut out; no body holds it.
_MARK = f"cut out {secrets.token_hex(16)} "

_any = msgspec.json.Decoder(msgspec.Raw)

T = TypeVar("T")


class Pieces(tuple[bytes | bytearray | memoryview, ...]):
    """A large body in pieces, which are sent one after the other."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """Bytes, of all of them."""
        return sum(map(len, self))


async def in_turns(steps: Generator[None, None, T]) -> T:
    """Others have their turn between two steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        await asyncio.sleep(0)


def at_once(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def read(body: bytes | bytearray, fields: msgspec.json.Decoder[Any], spelled: str = "") -> Generator[None, None, Any]:
    """What the body says; of an object only the fields that the decoder knows. Raises `orjson.JSONDecodeError`.

    The field of the name `spelled` is a memoryview of what the body has there if it is a long string.
    """
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        rest, strings = yield from _cut(body)
        found = msgspec.structs.asdict(fields.decode(rest))
        _hold_to_utf8(rest)
        return {name: _whole(value, strings, spelled=name == spelled) for name, value in found.items()}
    return orjson.loads(body)


def _whole(value: Any, strings: list[memoryview], *, spelled: bool = False) -> Any:
    """The value with the strings that were cut out of it."""
    match value:
        case str() if value.startswith(_MARK):
            string = strings[int(value.removeprefix(_MARK))]
            return string if spelled else orjson.loads(string)
        case list():
            return [_whole(item, strings) for item in value]
        case dict():
            return {_whole(key, strings): _whole(item, strings) for key, item in value.items()}
    return value


def _cut(body: bytes | bytearray) -> Generator[None, None, tuple[bytes | bytearray, list[memoryview]]]:
    """The body without its long strings, and these as it spells them. Raises as `_end_of_string`."""
    view = memoryview(body)
    parts: list[bytes | memoryview] = []
    strings: list[memoryview] = []
    short = cut = at = 0
    while short < MOST_SHORT_STRINGS and (begin := body.find(b'"', at)) >= 0:
        if end := _REST_OF_STRING.match(body, begin + 1, begin + 1 + SHORT_STRING_BYTES):
            at = end.end()
            short += 1
        else:
            at = yield from _end_of_string(body, begin + 1)
            parts += (view[cut:begin], b'"%b%d"' % (_MARK.encode(), len(strings)))
            strings.append(view[begin:at])
            cut = at
    return (b"".join((*parts, view[cut:])) if strings else body), strings


def _end_of_string(body: bytes | bytearray, at: int) -> Generator[None, None, int]:
    """The place after the quote that ends a string's contents. Raises as `_hold_to_json`."""
    while at < len(body):
        window = bytes(memoryview(body)[at : at + WINDOW_BYTES])
        if at + len(window) < len(body):
            window = window[: _last_boundary(window)]
        try:
            _hold_to_json(window)
        except (msgspec.DecodeError, UnicodeDecodeError):
            break  # The end is in there, or what no string may have.
        at += len(window)
        yield
    end = _REST_OF_STRING.match(body, at, at + WINDOW_BYTES)
    if end is None:
        raise msgspec.DecodeError("a string has no end")
    _hold_to_json(bytes(memoryview(body)[at : end.end() - 1]))
    return end.end()


def _last_boundary(window: bytes) -> int:
    """The last place that is within no character, no escape and no pair of surrogates. The window begins at one."""
    end = len(window)
    last = window.rfind(b"\\", end - _LONGEST_ESCAPE)
    if last < 0:
        # before the last character, which may not be whole
        return next((at for at in range(end - 1, end - 4, -1) if window[at] & 0xC0 != 0x80), end)
    if not _begins_escape(window, last):
        return last + 1
    pair = last - _LONGEST_ESCAPE // 2
    if _HIGH_SURROGATE.match(window, pair) and _begins_escape(window, pair):
        return pair
    return last


def _begins_escape(window: bytes, at: int) -> bool:
    """Whether the backslash there is no escaped one itself."""
    before = window[: at + 1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _hold_to_json(contents: bytes) -> None:
    """Raises `msgspec.DecodeError` or `UnicodeDecodeError` if these can be no contents of a string."""
    _any.decode(b'"%b"' % contents)
    _hold_to_utf8(contents)


def _hold_to_utf8(text: bytes | bytearray) -> None:
    """What the decoder passes over it does not hold to UTF-8."""
    if not text.isascii():
        text.decode()
