"""The one seam to the network's HTTP side. The rest of the data plane knows `Transport`, `Answer` and two errors.

TransportError
├── NotSent      the peer provably never saw the request: it may go elsewhere
└── Broken       the request was (or may have been) written, and no whole answer came: ambiguous
    └── TimedOut     … within the time that it had

"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyreqwest.client import Client

CONNECT_TIMEOUT_SECONDS = 5.0
# Shorter than what servers commonly keep an idle connection for (uvicorn 5 s), so that a connection
# is rarely closed by the peer in the moment that we write to it: that would be ambiguous.
IDLE_CONNECTION_SECONDS = 4.0


class TransportError(Exception):
    """No answer came. The message ends with the peer's URL and the cause in the system's words."""


class NotSent(TransportError):
    """The peer never saw the request: refused, no route, no such host, TLS not agreed."""


class Broken(TransportError):
    """The request may have been seen: the connection broke before a whole answer came."""


class TimedOut(Broken):
    """The request may have been seen: no whole answer came within the time it had."""


class Answer(NamedTuple):
    status: int
    body: bytes


class Transport(Protocol):
    """What the queue client and the pool need of an HTTP client. Timeouts are in seconds, for the whole exchange."""

    def get(self, url: str, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        """Raises `TransportError`."""
        ...

    def post(self, url: str, body: bytes, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        """`body` is JSON. Raises `TransportError`."""
        ...

    async def close(self) -> None: ...


@lru_cache(maxsize=256)
def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


class HttpTransport:
    """pyreqwest (Rust's reqwest): the fastest client that was measured, see docs/performance.md."""

    def __init__(self) -> None:
        self._client: Client = (
            ClientBuilder()
            .no_proxy()
            .follow_redirects(False)
            .referer(False)
            # a result is passed on byte for byte: nothing is gained by having it compressed on the way here
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .connect_timeout(_seconds(CONNECT_TIMEOUT_SECONDS))
            .pool_idle_timeout(_seconds(IDLE_CONNECTION_SECONDS))
            .user_agent("queueworker")
            .default_headers({"content-type": "application/json"})
            .build()
        )

    # No coroutines of their own: every level costs each time that a task of the loop goes on.

    def get(self, url: str, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        return self._send("GET", url, None, timeout, key)

    def post(self, url: str, body: bytes, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        return self._send("POST", url, body, timeout, key)

    async def _send(self, method: str, url: str, body: bytes | None, timeout: float, key: str | None) -> Answer:
        try:
            request = self._client.request(method, url).timeout(_seconds(timeout))
            if body is not None:
                request = request.body_bytes(body)
            if key is not None:
                request = request.header("X-API-Key", key, is_sensitive=True)
            built = request.build()
        except ValueError as error:
            raise NotSent(f"{url}: {error}") from error
        try:
            response = await built.send()
            return Answer(response.status, (await response.bytes()).to_bytes())
        except PyreqwestError as error:
            raise _classified(url, error) from error

    async def close(self) -> None:
        await self._client.close()


def _classified(url: str, error: PyreqwestError) -> TransportError:
    """Tell what provably was not sent from what is ambiguous.

    pyreqwest's exception types do not: a reset after the request was written is a `ConnectError`, and
    an answer that never came a `ConnectTimeoutError` (seen with 0.15.1). The chain of causes does:
    only a failure to connect carries hyper's `client error (Connect)`.
    """
    causes = _causes(error)
    text = f"{url}: {causes[-1] if causes else error}"
    if any("client error (Connect)" in cause for cause in causes):
        return NotSent(text)
    if isinstance(error, TimeoutError) or any("timed out" in cause for cause in causes):
        return TimedOut(text)
    return Broken(text)


def _causes(error: PyreqwestError) -> list[str]:
    if isinstance(error, DetailedPyreqwestError) and error.details:
        return [cause["message"] for cause in error.details.get("causes") or ()]
    return []
