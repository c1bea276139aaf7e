"""Connections to one origin: those that are kept, those that are in use, and the making of new ones."""

from __future__ import annotations

import asyncio
import base64
import math
import re
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from aiohappyeyeballs import start_connection

from queueworker.routing.http.connection import MAX_IDLE_SECONDS, Connection
from queueworker.routing.http.errors import NotSent, cause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queueworker.routing.http.lookups import AddressInfo, Lookups

CONNECT_TIMEOUT_SECONDS = 5.0
# How long an address may take before the next one is tried beside it (RFC 8305).
HAPPY_EYEBALLS_SECONDS = 0.25
# A key that is changed leaves the heads with the old one behind.
MAX_HEADS = 8
_ZONE = re.compile(r"%[^\]]*(?=\])")


class Origin:
    """What a URL says before its path. Raises ValueError for one that we cannot connect to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
            raise ValueError("not the URL of an HTTP server")
        if parts.query or parts.fragment or parts.path:
            raise ValueError("the URL has no path after its host")
        self.tls = parts.scheme == "https"
        # The zone of an IPv6 address is written %25 in a URL, and means nothing to the peer (RFC 6874).
        self.host = parts.hostname.replace("%25", "%", 1)
        self.port = (443 if self.tls else 80) if parts.port is None else parts.port
        credentials, _, authority = parts.netloc.rpartition("@")
        authority = _ZONE.sub("", authority)
        # Without Accept-Encoding, a server may choose any encoding (RFC 9110, section 12.5.3).
        wanted = "User-Agent: queueworker\r\nAccept: */*\r\nAccept-Encoding: identity"
        self._headers = f"Host: {authority}\r\n{wanted}\r\n{_authorization(credentials)}"
        self._heads: dict[str | None, tuple[str, str]] = {}

    def heads(self, key: str | None) -> tuple[str, str]:
        """What follows the path in the head of a GET, and in that of a POST up to its length. Raises ValueError."""
        return self._heads.get(key) or self._make_heads(key)

    def _make_heads(self, key: str | None) -> tuple[str, str]:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("the API key has a character that an HTTP header cannot have")
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        common = f" HTTP/1.1\r\n{self._headers}" + (f"X-API-Key: {key}\r\n" if key else "")
        made = self._heads[key] = (f"{common}\r\n", f"{common}Content-Type: application/json\r\nContent-Length: ")
        return made


def _authorization(credentials: str) -> str:
    """The header for the credentials of a URL (`user:password`)."""
    if not credentials:
        return ""
    return f"Authorization: Basic {base64.b64encode(unquote(credentials).encode()).decode()}\r\n"


class ConnectionPool:
    """The last connection that was used is the next to be used: those that are not needed grow old."""

    def __init__(
        self, origin: Origin, lookups: Lookups, clock: Callable[[], float], tls: Callable[[], ssl.SSLContext]
    ) -> None:
        self.origin = origin
        self.in_use: set[Connection] = set()
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Task[Connection]] = set()
        self._lookups = lookups
        self._clock = clock
        self._tls = tls
        self._closed = False

    @property
    def empty(self) -> bool:
        return not (self._idle or self.in_use or self._connecting)

    def take(self, now: float) -> Connection | None:
        """A kept connection that can be written to."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable(now):
                return connection
            connection.abort()
        return None

    def keep(self, connection: Connection, now: float) -> None:
        connection.idle_since = now
        self._idle.append(connection)

    def sweep(self, now: float) -> float:
        """End what is over its time. Gives the time at which the next one may be."""
        for connection in self._idle:
            if connection.outdated(now):
                connection.abort()
        self._idle = [connection for connection in self._idle if not connection.closed]
        due = min((connection.idle_since + MAX_IDLE_SECONDS for connection in self._idle), default=math.inf)
        for connection in tuple(self.in_use):
            if connection.waits_for_room:
                continue
            if connection.deadline <= now:
                connection.time_out()
            elif connection.deadline < due:
                due = connection.deadline
        return due

    def close(self) -> None:
        self._closed = True
        for connecting in self._connecting:
            connecting.cancel()
        for connection in (*self.in_use, *self._idle):
            connection.abort("the HTTP client is closed")
        self._idle.clear()

    async def connect(self, url: str, timeout: float) -> Connection:
        """A new connection, within `timeout` seconds and our own bound. Raises `NotSent`, with the URL."""
        # A task of its own is always run to its end, and closes what it has opened; who waits here may be dropped.
        connecting = asyncio.create_task(self._connect(min(timeout, CONNECT_TIMEOUT_SECONDS)))
        self._connecting.add(connecting)
        try:
            await asyncio.wait((connecting,))
        except BaseException:
            self._give_up(connecting)
            raise
        # Not by a callback, which may run some time before: a sweep in between would take this pool for an empty one.
        self._connecting.discard(connecting)
        if self._closed:
            self._give_up(connecting)
            raise NotSent(f"{url}: the HTTP client is closed")
        try:
            return connecting.result()
        except TimeoutError as error:
            raise NotSent(f"{url}: timed out before it was connected") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise NotSent(f"{url}: {cause(error)}") from error

    def _give_up(self, connecting: asyncio.Task[Connection]) -> None:
        connecting.cancel()
        connecting.add_done_callback(_abort_connected)
        connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, timeout: float) -> Connection:
        origin = self.origin
        async with asyncio.timeout(timeout):
            addresses = _numeric(origin.host, origin.port) or await self._lookups.find(origin.host, origin.port)
            connected = await start_connection(list(addresses), happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS)
            # From here on the socket is the loop's to close, whatever happens: a second close could hit another one.
            connection = Connection(connected, self._clock(), tls=origin.tls)
            tls, name = (self._tls(), origin.host.rstrip(".")) if origin.tls else (None, None)
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, sock=connected, ssl=tls, server_hostname=name)
        if connection.closed or (not origin.tls and connection.has_news()):  # TLS has news of its own
            connection.abort()
            raise ConnectionError("the peer closed the connection or spoke before it was asked")
        return connection


def _abort_connected(connecting: asyncio.Task[Connection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abort()


def _numeric(host: str, port: int) -> Sequence[AddressInfo] | None:
    """The address itself, if the host is one: then nothing has to be looked up."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return None
