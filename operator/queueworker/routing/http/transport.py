"""The one seam to the network's HTTP side. The rest of the data plane knows `Transport`, `Answer` and two errors.

TransportError
├── NotSent      the peer provably never saw the request: it may go elsewhere
└── Broken       the request was (or may have been) written, and no whole answer came: ambiguous
    └── TimedOut     … within the time that it had

"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pycurl
from pycurl import Curl

from queueworker.routing.http.large import Pieces
from queueworker.routing.http.transfers import TURN_BYTES, Transfers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECT_TIMEOUT_SECONDS = 5.0
# Shorter than what servers commonly keep an idle connection for (uvicorn 5 s), so that a connection
# is rarely closed by the peer in the moment that we write to it: that would be ambiguous.
IDLE_CONNECTION_SECONDS = 4
# A request's body that a handle does not keep until its next use.
LARGE_BODY_BYTES = 65_536
# What a handle answers before its request is written.
CARRY_ON: int = pycurl.PREREQFUNC_OK
ABORT: int = pycurl.PREREQFUNC_ABORT
# What it answers when others have their turn.
PAUSE_RECEIVING: int = pycurl.WRITEFUNC_PAUSE
PAUSE_SENDING: int = pycurl.READFUNC_PAUSE
# Nothing waits for a `100 Continue`.
HEADERS = ["Content-Type: application/json", "Expect:"]


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
    body: bytes | bytearray
    """A bytearray, which nobody may change, when it came in many pieces: they are not copied once more."""


class Transport(Protocol):
    """What the queue client and the pool need of an HTTP client. Timeouts are in seconds, for the whole exchange."""

    def get(self, url: str, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        """Raises `TransportError`."""
        ...

    def post(self, url: str, body: bytes | Pieces, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        """`body` is JSON. Raises `TransportError`."""
        ...

    async def close(self) -> None: ...


@cache
def authorities() -> list[tuple[int, str]]:
    """Where certificate authorities are, as OpenSSL and Python find them: SSL_CERT_FILE, SSL_CERT_DIR, the system's."""
    paths = ssl.get_default_verify_paths()
    # one of them: libcurl keeps what it has read of a file, but not of a folder
    found = ((pycurl.CAINFO, paths.cafile), (pycurl.CAPATH, paths.capath))
    return [(option, path) for option, path in found if path][:1]


class _Handle:
    """One of libcurl's handles, used for one exchange after another."""

    __slots__ = ("_body", "_last_line", "_left", "_transfers", "curl", "key", "requests", "stale")

    def __init__(self, transfers: Transfers) -> None:
        self.key: str | None = None
        self.requests = 0
        """How often in this exchange a request was going to be written to a connection."""
        self.stale = False
        """Whether it was not written, because its kept connection is dead."""
        self._body: bytes | bytearray = b""
        self._last_line: deque[bytes] = deque(maxlen=1)
        """Of the answer's head."""
        self._left = TURN_BYTES
        """What it may take or give in this turn of the loop."""
        self._transfers = transfers
        self.curl = curl = Curl()
        curl.setopt(pycurl.HTTPHEADER, HEADERS)
        curl.setopt(pycurl.USERAGENT, "queueworker")
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_TIMEOUT_SECONDS * 1000))
        curl.setopt(pycurl.MAXAGE_CONN, IDLE_CONNECTION_SECONDS)
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, 0)
        for option, path in authorities():
            curl.setopt(option, path)
        curl.setopt(pycurl.WRITEFUNCTION, self._receive)
        curl.setopt(pycurl.HEADERFUNCTION, self._last_line.append)
        curl.setopt(pycurl.PREREQFUNCTION, self._before_request)
        transfers.prepare(curl)

    def use_key(self, key: str | None) -> None:
        """Raises ValueError for one that no header can carry."""
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("the API key has a character that an HTTP header cannot have")
        self.curl.setopt(pycurl.HTTPHEADER, [*HEADERS, f"X-API-Key: {key}"] if key else HEADERS)
        self.key = key

    def use_body(self, body: bytes | Pieces) -> None:
        if isinstance(body, Pieces):
            self.curl.setopt(pycurl.POST, 1)
            self.curl.setopt(pycurl.POSTFIELDSIZE_LARGE, body.size)
            self.curl.setopt(pycurl.READFUNCTION, self._reader(body))
        else:
            self.curl.setopt(pycurl.POSTFIELDS, body)

    def take_whole_body(self) -> bytes | bytearray:
        """Raises `pycurl.error` if the answer's head has no end: libcurl takes what there was of it for the answer."""
        if not self._body and self._last_line[0].strip():
            raise pycurl.error(pycurl.E_PARTIAL_FILE, "the connection was closed before the whole answer came")
        return self.take_body()

    def take_body(self) -> bytes | bytearray:
        body, self._body = self._body, b""
        return body

    def _receive(self, part: bytes) -> int | None:
        if not self._body:
            self._body = part
            return None  # all of it
        if self._has_had_its_turn(len(part)):
            return PAUSE_RECEIVING
        if isinstance(self._body, bytearray):
            self._body += part
        else:
            self._body = bytearray(self._body) + part
        return None

    def _has_had_its_turn(self, size: int) -> bool:
        """Whether a part of that size has to wait: libcurl then comes again with it."""
        if self._left > 0:
            self._left -= size
            return False
        self._left = TURN_BYTES
        self._transfers.rest(self.curl)
        return True

    def _reader(self, body: Pieces) -> Callable[[int], bytes | int]:
        """Gives libcurl the next so many bytes, or fewer."""
        views = deque(memoryview(piece) for piece in body)

        def read(most: int) -> bytes | int:
            while views and not views[0]:
                views.popleft()
            if not views:
                return b""
            if self._has_had_its_turn(len(part := views[0][:most])):
                return PAUSE_SENDING
            views[0] = views[0][most:]
            return bytes(part)

        return read

    def _before_request(self, _peer: str, local: str, _peer_port: int, port: int) -> int:
        self.requests += 1
        if self.requests > 1:
            return ABORT  # A kept connection died before the answer: libcurl would send it again, a POST as well.
        if (local, port) in self._transfers.dead:
            self.requests, self.stale = 0, True
            return ABORT
        return CARRY_ON


class HttpTransport:
    """libcurl, by pycurl; docs/design.md says why."""

    def __init__(self) -> None:
        self._transfers: Transfers | None = None
        self._closed = False
        self._free: tuple[list[_Handle], list[_Handle]] = ([], [])
        """Without a key in their headers, and with one."""

    # No coroutines of their own: every level costs each time that a task of the loop goes on.

    def get(self, url: str, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        return self._send(url, None, timeout, key)

    def post(self, url: str, body: bytes | Pieces, timeout: float, key: str | None = None) -> Awaitable[Answer]:
        return self._send(url, body, timeout, key)

    async def _send(self, url: str, body: bytes | Pieces | None, timeout: float, key: str | None) -> Answer:
        if self._transfers is None:
            if self._closed:  # libcurl would crash: another thread may be closing it
                raise NotSent(f"{url}: the HTTP client is closed")
            self._transfers = Transfers()
        transfers, free = self._transfers, self._free[key is not None]
        # a handle that once had a body in one piece takes none in several
        handle = free.pop() if free and not isinstance(body, Pieces) else _Handle(transfers)
        curl = handle.curl
        handle.requests = 0
        try:
            if handle.key != key:
                handle.use_key(key)
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.TIMEOUT_MS, max(1, int(timeout * 1000)))  # 0 would be for ever
            while True:
                if body is None:
                    curl.setopt(pycurl.HTTPGET, 1)
                else:
                    handle.use_body(body)
                handle.stale = False
                try:
                    await transfers.start(curl)
                    return Answer(curl.getinfo(pycurl.RESPONSE_CODE), handle.take_whole_body())
                except pycurl.error:
                    if self._closed or not handle.stale:
                        raise
        except pycurl.error as error:
            raise _classified(url, handle, error) from error
        except ValueError as error:
            raise NotSent(f"{url}: {error}") from error
        except (asyncio.CancelledError, GeneratorExit):
            transfers.stop(curl)
            raise
        finally:
            handle.take_body()
            if isinstance(body, Pieces):
                curl.close()
            else:
                if body is not None and len(body) > LARGE_BODY_BYTES:
                    handle.use_body(b"")  # the handle would keep it
                free.append(handle)

    async def close(self) -> None:
        transfers, self._transfers, self._closed = self._transfers, None, True
        if transfers is not None:
            transfers.close()
        for free in self._free:
            for handle in free:
                handle.curl.close()
            free.clear()


def _classified(url: str, handle: _Handle, error: pycurl.error) -> TransportError:
    """Tell what provably was not sent from what is ambiguous: by whether libcurl was going to write the request."""
    code, text = error.args
    if code == pycurl.E_COULDNT_CONNECT and (number := handle.curl.getinfo(pycurl.OS_ERRNO)):
        text = os.strerror(number)
    elif handle.requests > 1:
        text = "the connection was closed before an answer came"
    text = f"{url}: {text}"
    if handle.requests == 0:
        return NotSent(text)
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return TimedOut(text)
    return Broken(text)


class TooLarge(Broken):
    def __init__(self, message: str, status: int, size: int | None, limit: int) -> None:
        super().__init__(message)
        self.status, self.size, self.limit = status, size, limit
