"""What the demo's HTTP services share: how they listen, answer and stop.

A service binds its socket before it says so: whoever reads its first line of standard output can connect at
once, and a port of 0 (any free one) is good enough for tests that run side by side.
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
    """The body is not what `wire.md` says; answered with 422, as the platform's services do."""


def answer(content: Any, status: int = 200) -> Response:
    """JSON, by the fastest encoder at hand: results can be megabytes."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def refusal(_request: Request, error: Exception) -> Response:
    """The exception handler for `BadRequestError`."""
    return answer({"detail": str(error)}, 422)


def gone(_request: Request, _error: Exception) -> Response:
    """The exception handler for a client that left before its body was read; nobody reads this answer."""
    return answer({"detail": "the client went away"}, 400)


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Response]] = {
    BadRequestError: refusal,
    ClientDisconnect: gone,
}


async def read_object(request: Request) -> dict[str, Any]:
    """The request's body. Raises `BadRequestError` when it is not a JSON object."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def text_field(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """A string of the body. Raises `BadRequestError` when it is missing (and has no default) or no string."""
    value = body.get(name, default)
    if not isinstance(value, str):
        raise BadRequestError(f"{name}: must be a string")
    return value


def int_field(body: dict[str, Any], name: str, default: int, *, minimum: int) -> int:
    """An integer of the body. Raises `BadRequestError` when it is none, or below `minimum`."""
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise BadRequestError(f"{name}: must be an integer of at least {minimum}")
    return value


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they end the process by the signal, ours end it with status 0."""

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
    """Serve until SIGTERM or SIGINT, then return: open requests have `grace_seconds` to end.

    `on_stop` is called in the loop as soon as the signal is there, before open requests are waited for.
    Ends the process with status 1 and a sentence when the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        print(f"cannot listen on {host}:{port}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from error
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    print(f"listening on http://{shown}:{listener.getsockname()[1]}", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, listener, on_stop, grace_seconds))
