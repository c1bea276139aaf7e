"""Whether Redis answers the journal, and what is wrong if not, in plain words.

redis-py's texts quote error numbers and addresses.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.resource.redis_url import shown
from queueworker.routing.snapshot import Link, LinkReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.counters import Counters

CONNECTED = Link(LinkReason.CONNECTED)

_CONNECTING = re.compile(r"Error (-?\d+) (?:connecting to|while writing to) ")
_CLOSED = re.compile(r"Connection closed|Connection lost|Error while reading|the handler is closed", re.IGNORECASE)
# What Redis adds to an error: the place in a script, and the arguments of a command.
_ADDED = re.compile(r"\.? script: [0-9a-f]{40}, on @user_script:\d+\.?$|, with args beginning with: .*", re.DOTALL)
_CLUSTER = re.compile(
    r"MOVED|CROSSSLOT|CLUSTERDOWN|slot not served|non local key|of slot|same slot|cluster", re.IGNORECASE
)
# The second alternative is what Redis 6.0 says to a script.
_REFUSED = re.compile(
    r"NOPERM|executing the script can't|ACL failure|No permissions? to|has no permissions", re.IGNORECASE
)

MAX_REFUSALS = 3


class RedisLink:
    """The outcome of the journal's last exchange with Redis, whoever had it. `on_change` is called when it changed.

    `waits`: whether something is to be written, or on its way. A heartbeat that passes says nothing about a batch that
    Redis refused, for example because its user may not publish: while that one waits, only a batch can say that all is
    well.
    """

    def __init__(
        self, redis_url: str, counters: Counters, on_change: Callable[[], None], *, waits: Callable[[], bool]
    ) -> None:
        self.journal = Link()
        self.events = Link()
        """As `journal`, but for publishing: a Redis that is out of memory still publishes."""
        self.failures = 0
        """Since the last success."""
        self.restored = asyncio.Event()
        """Set when Redis answers again: whoever waits to try again may stop waiting. It is for the waiter to clear."""
        self._name = f"Redis {shown(redis_url)}"
        self._counters = counters
        self._on_change = on_change
        self._waits = waits
        self._batch_refused = False
        self._lacks_rights = False
        self._connected = CONNECTED
        """With a message when Redis answers, and is not set up as the journal needs it."""

    @property
    def worth_waiting(self) -> bool:
        """Whether what is to be written may be written soon: Redis answers, or was never asked."""
        reason = self.journal.reason
        return reason is LinkReason.CONNECTED or reason is LinkReason.UNKNOWN

    def succeeded(self, *, batch: bool = False) -> None:
        """`batch`: a batch was written. Else it is only known that Redis answers."""
        if self._lacks_rights and batch:
            self._set(self.journal, CONNECTED)
            return
        self._lacks_rights = False
        if self._batch_refused and not batch and self._waits():
            self.restored.set()  # for the batch to be tried again
            return
        self._batch_refused = False
        self.failures = 0
        if not self.journal.ok:
            self.restored.set()
            self._set(self._connected, CONNECTED)

    def advise(self, advice: str) -> None:
        """What should be changed at this Redis, for the journal's message; empty when nothing."""
        if advice != self._connected.message:
            self._connected = Link(LinkReason.CONNECTED, advice and f"{self._name} {advice}")
            if self.journal.ok:
                self.journal = self._connected
                self._on_change()

    def lacks_rights(self, error: Exception) -> None:
        """A heartbeat found that the user may not run all that the journal needs: so it is until one finds otherwise,
        whatever becomes of batches that do without.
        """
        self._lacks_rights = False
        self.failed(error, publishes=self.events.ok)
        self._lacks_rights = True

    def failed(self, error: Exception, *, batch: bool = False, publishes: bool = False) -> None:
        """`batch`: of a batch. `publishes`: Redis refused entries only, and published the events."""
        self._batch_refused = self._batch_refused or (batch and isinstance(error, ResponseError))
        self.failures += 1
        self._counters.journal_errors += 1
        reason = LinkReason.AUTHENTICATION_FAILED if is_refusal(error) else LinkReason.CONNECTION_FAILED
        link = Link(reason, f"{self._name}: {reason_of(error)}")
        if self._lacks_rights and is_refusal(error):
            link = self.journal  # the heartbeat's words name all that is missing
        self._set(link, CONNECTED if publishes else link)

    def refused(self, answer: bytes, times: int) -> None:
        """A batch was refused, for so many times in a row, and the lease was renewed each time."""
        if times >= MAX_REFUSALS:  # more than what an outage or a takeover explains: nobody may wait for it
            words = f"it refuses every batch ({answer.decode()}): something else has written to the keys of the journal"
            self.failed(ResponseError(words), batch=True)

    def _set(self, journal: Link, events: Link) -> None:
        changed = (journal.reason, events.reason) != (self.journal.reason, self.events.reason)
        self.journal, self.events = journal, events
        if changed:
            self._on_change()


def reason_of(error: BaseException) -> str:
    """What went wrong, to be read after the name of the Redis. Redis' own words, such as READONLY, stay as they are."""
    # redis-py takes the word away by which a node of a cluster names another one.
    text = f"MOVED {error}" if isinstance(error, AskError) else str(error)
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    if found := _CONNECTING.match(text):
        return _of_number(int(found[1]))
    if isinstance(error, OSError) and error.errno:
        return _of_number(error.errno)
    if isinstance(error, RedisConnectionError | RuntimeError) and _CLOSED.search(text):  # uvloop raises the second
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
