"""Serves the HTTP API in the running event loop, without touching signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from queueworker.resource.urls import host_in_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

CLOSING_SECONDS = 2
"""Time for requests that are still running when the server ends."""
IDLE_SECONDS = 75
"""Time for the next piece of a request's head; then the connection is closed. Longer than gateways keep an idle one."""
MAX_HEAD_BYTES = 64 * 1024
NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""The system has no IPv6, or it is switched off."""


class CannotListen(Exception):
    """The address cannot be bound. The message names it and says what to do."""


class _Protocol(HttpToolsProtocol):
    """Bounds the head of a request. uvicorn takes one of any size, in a time that grows with its square, and waits for
    one without end: a client could have stopped the routers of the process.
    """

    _in_head = True
    _head_bytes = 0
    _request_ended = False
    """In the piece that is being read: some of the piece was no part of the next head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._bound_wait()

    def data_received(self, data: bytes) -> None:
        self._request_ended = False
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += 0 if self._request_ended else len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"The head of a request may have {MAX_HEAD_BYTES} bytes.")
            else:
                self._bound_wait()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes, self._request_ended = True, 0, True
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Logs nothing: Java's client wishes for HTTP/2 in each first request, and is content with our answer."""

    def _bound_wait(self) -> None:
        """By the timer of uvicorn, which stops it when something comes, and starts it after an answer."""
        if self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete):
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would end the server at SIGTERM, but it has to serve until the routers have drained."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def serve(app: ASGIApp, host: str, port: int, *, idle_seconds: int = IDLE_SECONDS) -> AsyncIterator[int]:
    """Serve until the block ends. Yields the port, which is any free port if `port` is 0. Raises CannotListen.

    Enter this block before all others: it has to serve until everything else has ended, and kopf cancels at its end
    every task that was created after it.
    """
    listener = listen(host, port)
    logging.getLogger("uvicorn.error").addFilter(_client_is_there)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        log_level=logging.WARNING,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        timeout_keep_alive=idle_seconds,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="web-server")
    up = asyncio.create_task(server.up.wait())
    try:
        await asyncio.wait({serving, up}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        address, bound = listener.getsockname()[:2]
        log.info("listening on http://%s:%d", host_in_url(address), bound)
        yield bound
    finally:
        up.cancel()
        server.should_exit = True
        await serving


def _client_is_there(record: logging.LogRecord) -> bool:
    """False for the error of an answer to a client that has gone: uvloop raises it, and uvicorn logs a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and str(error).endswith("the handler is closed"))


def bind(host: str, port: int) -> socket.socket:
    """Raises OSError, or OverflowError for a port that is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = host == "::"
    if dual and not socket.has_dualstack_ipv6():
        raise OSError(errno.EAFNOSUPPORT, "no IPv6")
    return socket.create_server((host, port), family=family, backlog=256, dualstack_ipv6=dual)


def listen(host: str, port: int, *, bind: Callable[[str, int], socket.socket] = bind) -> socket.socket:
    """Listen on `::` for all addresses; on a machine without IPv6, these are all of IPv4. Raises CannotListen."""
    try:
        return bind(host, port)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # the last two: no name has such characters
        if host == "::" and getattr(error, "errno", None) in NO_IPV6:
            return listen("0.0.0.0", port, bind=bind)
        raise CannotListen(f"cannot listen on {host}:{port}: {_reason(error, host, port)}") from error


_HOST = "(HOST for the worker, --host for the operator)"
_PORT = "(PORT for the worker, --port for the operator)"


def _reason(error: Exception, host: str, port: int) -> str:
    """What is wrong, and what to do."""
    number = getattr(error, "errno", None) or 0
    if number < 0 or isinstance(error, TypeError | ValueError):  # of the resolver
        return f"the name {host} cannot be looked up; give an address of this machine {_HOST}"
    match number:
        case errno.EADDRINUSE:
            return f"another process uses port {port}; end that process, or choose another port {_PORT}"
        case errno.EADDRNOTAVAIL:
            return f"this machine has no address {host}; choose one that it has, or :: for all of them {_HOST}"
        case errno.EACCES:
            return f"this user may not use port {port}; choose one above 1023 {_PORT}"
        case _:
            return f"{os.strerror(number).lower() if number else 'no such port'}; choose another address or port"
