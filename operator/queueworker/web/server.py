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

from queueworker.resource.urls import host_in_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

CLOSING_SECONDS = 2
"""Time for requests that are still running when the server ends."""
NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""The system has no IPv6, or it is switched off."""


class CannotListen(Exception):
    """The address cannot be bound. The message names it and says what to do."""


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
async def serve(app: ASGIApp, host: str, port: int) -> AsyncIterator[int]:
    """Serve until the block ends. Yields the port, which is any free port if `port` is 0. Raises CannotListen.

    Enter this block before all others: it has to serve until everything else has ended, and kopf cancels at its end
    every task that was created after it.
    """
    listener = listen(host, port)
    logging.getLogger("uvicorn.error").addFilter(_client_is_there)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        log_level=logging.WARNING,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        timeout_keep_alive=75,
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
