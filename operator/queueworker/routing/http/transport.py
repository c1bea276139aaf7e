"""The one seam to the network's HTTP side. The rest of the data plane knows `Transport`, `Answer` and the errors.

TransportError
├── NotSent      the peer never saw the request: no byte of it was given to a socket. It may go elsewhere
└── Broken       a byte or more of the request was given to a socket, and no whole answer came: ambiguous
    ├── TimedOut     … within the timeout
    └── TooLarge     … because the body is above the limit: the status is known

"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from functools import cache
from typing import TYPE_CHECKING, Protocol

from queueworker.routing.http.answer import Answer
from queueworker.routing.http.connection import UNCLAIMED_BYTES
from queueworker.routing.http.connection_pool import ConnectionPool, Origin
from queueworker.routing.http.errors import Broken, NotSent, TimedOut, TooLarge, TransportError
from queueworker.routing.http.lookups import LookUp, Lookups, look_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from queueworker.routing.memory_budget import MemoryAccount

__all__ = ["Answer", "Broken", "HttpTransport", "NotSent", "TimedOut", "TooLarge", "Transport", "TransportError"]

# The sweep looks at least this often while there are connections, and at most that often.
SWEEP_SECONDS = 1.0
SHORTEST_SWEEP_SECONDS = 0.01
# A larger body is not copied behind the head.
SMALL_BODY_BYTES = 64 * 1024


class Transport(Protocol):
    """What the queue client and the pool need of an HTTP client.

    `timeout` is in seconds, for the whole exchange. `limit` is in bytes: a 2xx answer with a longer body raises
    `TooLarge`, the body of any other answer is cut there, or at 64 KiB.
    """

    def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Awaitable[Answer]:
        """`key` is sent as X-API-Key. Raises `TransportError`."""
        ...

    def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Awaitable[Answer]:
        """`body` is JSON. `headers` are further lines of the head, valid and each with its end.

        Raises `TransportError`.
        """
        ...

    async def close(self) -> None: ...


@cache
def tls_context() -> ssl.SSLContext:
    """Verifies peers by the authorities of SSL_CERT_FILE, SSL_CERT_DIR and the system."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class HttpTransport:
    """HTTP/1.1 over connections that are kept. Each request is sent once; docs/design.md says why that is ours.

    With `memory`, large answers to POST requests are received when there is room for them.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        look_up: LookUp = look_up,
        tls: Callable[[], ssl.SSLContext] = tls_context,
        memory: MemoryAccount | None = None,
    ) -> None:
        self._clock = clock
        self._tls = tls
        self._memory = memory
        self._lookups = Lookups(look_up)
        self._pools: dict[str, ConnectionPool] = {}
        """By what their URLs have before the path. Those that have no connections are dropped."""
        self._sweep_due = math.inf
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closed = False

    # No coroutines of their own: every level costs each time that a task of the loop goes on.

    def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Awaitable[Answer]:
        return self._send(url, None, timeout, key, limit)

    def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Awaitable[Answer]:
        return self._send(url, body, timeout, key, limit, headers)

    async def _send(
        self, url: str, body: bytes | None, timeout: float, key: str | None, limit: int, headers: str = ""
    ) -> Answer:
        path = url.find("/", 8)  # after "https://"
        if path < 0:
            url, path = f"{url}/", len(url)
        pool = self._pools.get(url[:path]) or self._pool(url, path)
        head, rest = _request(url, path, body, pool.origin, key, headers)
        now = self._clock()
        deadline = now + timeout
        connection = pool.take(now) or await pool.connect(url, timeout)
        if deadline < self._sweep_due:
            self._sweep_by(deadline)
        memory = None if body is None or limit <= UNCLAIMED_BYTES else self._memory
        in_use = pool.in_use
        in_use.add(connection)
        try:
            answer = await connection.exchange(url, head, rest, deadline, limit, memory)
        except BaseException:
            connection.abort()
            raise
        finally:
            in_use.discard(connection)
            if memory is not None:
                connection.release_room()
        if isinstance(answer, TransportError):
            raise answer
        if not connection.closed:
            pool.keep(connection, self._clock())
        return answer

    async def close(self) -> None:
        """Ends whatever is under way, at once."""
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        await asyncio.sleep(0)  # the loop closes the sockets now

    def _pool(self, url: str, path: int) -> ConnectionPool:
        if self._closed:
            raise NotSent(f"{url}: the HTTP client is closed")
        try:
            origin = Origin(url[:path])
        except ValueError as error:
            raise NotSent(f"{url}: {error}") from error
        pool = self._pools[url[:path]] = ConnectionPool(origin, self._lookups, self._clock, self._tls)
        self._sweep_by(self._clock() + SWEEP_SECONDS)
        return pool

    def _sweep_by(self, due: float) -> None:
        """See to it that there is a sweep then, or before."""
        if due >= self._sweep_due:
            return
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        wait = max(due - self._clock(), SHORTEST_SWEEP_SECONDS)
        self._sweep_due = due
        self._sweep_timer = asyncio.get_running_loop().call_later(wait, self._sweep)

    def _sweep(self) -> None:
        """One timer for the deadlines of all exchanges and the ages of all connections; none while there are none."""
        self._sweep_due = math.inf
        now = self._clock()
        due = now + SWEEP_SECONDS
        for prefix, pool in tuple(self._pools.items()):
            due = min(due, pool.sweep(now))
            if pool.empty:
                del self._pools[prefix]
        if self._pools:
            self._sweep_by(due)


def _request(
    url: str, path: int, body: bytes | None, origin: Origin, key: str | None, headers: str
) -> tuple[bytes, bytes]:
    """What goes first, and the body if it goes by itself. Raises `NotSent`."""
    try:
        get, post = origin.heads(key)
    except ValueError as error:
        raise NotSent(f"{url}: {error}") from error
    if not (url.isascii() and url.isprintable()) or " " in url or "#" in url:
        raise NotSent(f"{url!r}: the URL has a character that an HTTP request cannot have")
    target = url[path:]
    if body is None:
        return f"GET {target}{get}".encode(), b""
    head = f"POST {target}{post}{len(body)}\r\n{headers}\r\n".encode()
    return (head + body, b"") if len(body) <= SMALL_BODY_BYTES else (head, body)
