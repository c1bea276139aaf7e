"""Shared by the demo's HTTP services: listening, answering and stopping.

A service binds its socket before it prints its first line, so whoever reads that line can connect at once. Tests that
run at the same time use port 0 (any free port).
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import uvicorn
import uvloop
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp


class BadRequestError(Exception):
    """The body does not match docs/wire.md. The answer is 422, as from the platform's services."""


def answer(content: Any, status: int = 200) -> Response:
    """A JSON answer. orjson encodes it, because results can be megabytes."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def refusal(_request: Request, error: Exception) -> Response:
    """Exception handler for `BadRequestError`."""
    return answer({"detail": str(error)}, 422)


def gone(_request: Request, _error: Exception) -> Response:
    """Exception handler for a client that disconnected before its body was read; no one reads this answer."""
    return answer({"detail": "the client went away"}, 400)


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Response]] = {
    BadRequestError: refusal,
    ClientDisconnect: gone,
}


async def read_object(request: Request) -> dict[str, Any]:
    """The request's body. Raises `BadRequestError` if it is not a JSON object."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def text_field(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """A string field. Raises `BadRequestError` if it is missing without a default, or not a string."""
    value = body.get(name, default)
    if not isinstance(value, str):
        raise BadRequestError(f"{name}: must be a string")
    return value


def int_field(body: dict[str, Any], name: str, default: int, *, minimum: int) -> int:
    """An integer field. Raises `BadRequestError` if it is not an integer, or below `minimum`."""
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise BadRequestError(f"{name}: must be an integer of at least {minimum}")
    return value


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal; ours end it with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(app: ASGIApp, listener: socket.socket, on_stop: Callable[[], None] | None, grace: int) -> None:
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", timeout_graceful_shutdown=grace, timeout_keep_alive=75
    )
    server = _Server(config)

    def stop() -> None:
        if on_stop is not None:
            on_stop()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listener])


def serve(
    app: ASGIApp, host: str, port: int, *, on_stop: Callable[[], None] | None = None, grace_seconds: int = 5
) -> None:
    """Serve until SIGTERM or SIGINT, then return; open requests have `grace_seconds` to end.

    `on_stop` is called in the loop when the signal arrives, before the wait for open requests. If the address cannot be
    bound, the process prints the reason and exits with status 1.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        dual = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=dual)
    except OSError as error:
        print(f"cannot listen on {host}:{port}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from error
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    print(f"listening on http://{shown}:{listener.getsockname()[1]}", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, listener, on_stop, grace_seconds))
