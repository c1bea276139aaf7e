"""What went wrong between us and Redis, in plain words: redis-py's texts quote error numbers and addresses."""

from __future__ import annotations

import os
import re

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

_CONNECTING = re.compile(r"Error (-?\d+) connecting to ")
_CLOSED = re.compile(r"Connection closed|Connection lost|Error while reading", re.IGNORECASE)
# What Redis adds to an error: the place in a script, and the arguments of a command.
_ADDED = re.compile(r"\.? script: [0-9a-f]{40}, on @user_script:\d+\.?$|, with args beginning with: .*", re.DOTALL)
_CLUSTER = re.compile(r"MOVED|CROSSSLOT|CLUSTERDOWN|slot not served|non local key|same slot|cluster", re.IGNORECASE)
_REFUSED = re.compile(r"NOPERM|ACL failure|No permissions? to|has no permissions", re.IGNORECASE)


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
    if isinstance(error, RedisError) and _CLUSTER.search(text):
        return f"{_ADDED.sub('', text)}: the journal needs a single Redis, not a node of a cluster"
    if isinstance(error, RedisError) and "HELLO must be called" in text:
        return "it asks for a password, and the URL has none"
    if is_refusal(error) and _REFUSED.search(text):
        return f"{_ADDED.sub('', text)} (docs/security.md names the rights that its user needs)"
    return _ADDED.sub("", text) or type(error).__name__


def is_refusal(error: BaseException) -> bool:
    """Whether Redis refuses the user: its password, or a right. In a script, the lack of a right is a mere text."""
    known = isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError)
    return known or (isinstance(error, RedisError) and _REFUSED.search(str(error)) is not None)


def _of_number(number: int) -> str:
    return "its name cannot be looked up" if number < 0 else os.strerror(number).lower()
