"""A queue and executors over real HTTP, in the test's own loop, that misbehave on demand and keep an account.

They speak docs/wire.md. The demo's services are the reference; these are for what a well-behaved service does not do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import CIMultiDictProxy


class Server:
    """An HTTP server on a port of its own, which can go away and come back on the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    async def start(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        if not self.port:
            # not one of the ports for outgoing connections, which could take it while this server is away
            (self.port,) = free_ports(1)
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


@dataclass
class StubQueue(Server):
    """`waiting` holds what it hands out: task objects, or raw bytes to answer with."""

    key: str | None = None
    waiting: deque[Any] = field(default_factory=deque)
    handed_out: list[str] = field(default_factory=list)
    completed: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reports: Counter[str] = field(default_factory=Counter)
    polls: list[float] = field(default_factory=list)
    pull_answers: deque[web.Response] = field(default_factory=deque)
    """Answered, in turn, instead of the next task."""
    report_answers: deque[web.Response] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    """Ids that it has handed out and whose report it waits for."""

    def __post_init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Condition()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/tasks/next", self.next_task),
            web.post("/tasks/{id}/complete", self._complete),
            web.post("/tasks/{id}/fail", self._fail),
            web.get("/tasks/{id}", self._look_up),
            web.get("/status", self._status),
        ]

    def submit(self, *eval_ids: str, **fields: Any) -> None:
        for eval_id in eval_ids:
            self.waiting.append(
                {"eval_id": eval_id, "code": "print(1)", "language": "python", "engine": "docker"} | fields
            )

    async def reported(self, count: int, timeout: float = 10) -> None:
        """Return when so many ids were reported."""
        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(lambda: len(self.completed) + len(self.failed) >= count)

    def _refuses(self, request: web.Request) -> bool:
        return self.key is not None and request.headers.get("X-API-Key") != self.key

    async def next_task(self, request: web.Request) -> web.StreamResponse:
        self.polls.append(asyncio.get_running_loop().time())
        if self._refuses(request):
            return web.json_response({"detail": "wrong key"}, status=401)
        if self.pull_answers:
            return self.pull_answers.popleft()
        if not self.waiting:
            return web.json_response(None)
        task = self.waiting.popleft()
        if isinstance(task, bytes):
            return web.Response(body=task, content_type="application/json")
        self.handed_out.append(task["eval_id"])
        self.known.add(task["eval_id"])
        return web.json_response(task)

    async def report(
        self, request: web.Request, verb: str, take: Callable[[str, Any], None]
    ) -> web.StreamResponse | None:
        """The answer to a report; None when the id is unknown."""
        body = await request.json()
        if self._refuses(request):
            return web.json_response({"detail": "wrong key"}, status=401)
        if self.report_answers:
            return self.report_answers.popleft()
        eval_id = request.match_info["id"]
        if eval_id not in self.known:
            return None
        self.known.discard(eval_id)
        self.reports[eval_id] += 1
        take(eval_id, body)
        async with self.changed:
            self.changed.notify_all()
        return web.json_response({"status": verb})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        def take(eval_id: str, body: Any) -> None:
            self.completed[eval_id] = body["output"]

        unknown = web.json_response({"detail": "Task not found"}, status=404)
        return await self.report(request, "completed", take) or unknown

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        def take(eval_id: str, body: Any) -> None:
            self.failed[eval_id] = body["error"]

        return await self.report(request, "failed", take) or web.json_response({"status": "not_found"})

    async def _look_up(self, request: web.Request) -> web.StreamResponse:
        eval_id = request.match_info["id"]
        if eval_id not in self.known:
            return web.json_response({"detail": "Task not found"}, status=404)
        return web.json_response({"eval_id": eval_id, "status": "running"})

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"queued": len(self.waiting), "processing": len(self.known)})


@dataclass
class StubExecutor(Server):
    """Runs nothing: answers `completed` after `delay` seconds, or what `answers` holds in turn."""

    name: str = "executor-1"
    delay: float = 0.0
    healthy: bool = True
    max_concurrent: int | None = None
    answers: deque[Any] = field(default_factory=deque)
    """Responses; or "reset", which breaks the connection after the request was read."""
    executed: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    """The bodies of `/execute`."""
    headers: list[CIMultiDictProxy[str]] = field(default_factory=list)
    """The headers of `/execute`."""
    checks: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    gate: asyncio.Event | None = None
    """If there is one, tasks do not end until it is set."""
    health_gate: asyncio.Event | None = None
    """If there is one, health checks are not answered until it is set."""

    def __post_init__(self) -> None:
        super().__init__()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/execute", self.execute),
            web.get("/health", self.health),
            web.get("/capacity", self._capacity),
        ]

    async def execute(self, request: web.Request) -> web.StreamResponse:
        task = await request.json()
        self.executed.append(task["eval_id"])
        self.bodies.append(task)
        self.headers.append(request.headers)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.answers:
                answer = self.answers.popleft()
                if answer == "reset":
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                assert isinstance(answer, web.StreamResponse)
                return answer
            return web.json_response(result(task["eval_id"], self.name))
        finally:
            self.in_flight -= 1

    async def health(self, request: web.Request) -> web.StreamResponse:
        self.checks += 1
        if self.health_gate is not None:
            await self.health_gate.wait()
        return web.json_response({"status": "healthy"}, status=200 if self.healthy else 503)

    async def _capacity(self, request: web.Request) -> web.StreamResponse:
        if self.max_concurrent is None:
            return web.Response(status=404)
        return web.json_response({"max_concurrent": self.max_concurrent})


def result(eval_id: str, executor: str = "executor-1", **fields: Any) -> dict[str, Any]:
    """The result object of a task that completed."""
    return {
        "eval_id": eval_id,
        "status": "completed",
        "output": "1\n",
        "error": None,
        "exit_code": 0,
        "executor_id": executor,
        "container_id": "c",
    } | fields


async def until(condition: Callable[[], Any], timeout: float = 10) -> None:
    """Return when the condition, which may be a coroutine function, holds; it is looked at every 10 ms."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while not await _value(condition()):
                await asyncio.sleep(0.01)
            return
    raise AssertionError("the condition did not come to hold in time")


async def _value(found: Any) -> Any:
    return await found if isinstance(found, Awaitable) else found
