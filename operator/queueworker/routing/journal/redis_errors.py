"""What went wrong between us and Redis, in plain words: redis-py's texts quote error numbers and addresses."""

from __future__ import annotations

import os
import re

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

_CONNECTING = re.compile(r"Error (-?\d+) connecting to ")
_CLOSED = re.compile(r"Connection closed|Connection lost|Error while reading", re.IGNORECASE)


def reason_of(error: BaseException) -> str:
    """The reason, to be read after the name of the Redis. Redis' own words, such as READONLY, stay as they are."""
    text = str(error)
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    if found := _CONNECTING.match(text):
        return _of_number(int(found[1]))
    if isinstance(error, OSError) and error.errno:
        return _of_number(error.errno)
    if isinstance(error, RedisConnectionError) and _CLOSED.search(text):
        return "it closed the connection"
    return text or type(error).__name__


def _of_number(number: int) -> str:
    return "its name cannot be looked up" if number < 0 else os.strerror(number).lower()
