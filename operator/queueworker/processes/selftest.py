"""A test of an installation: tasks go from a queue of ours through the operator to an executor of ours.

Queue and executor are this process. The QueueWorker between them is made for the test, and deleted after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from queueworker.controller.cluster import Cluster, ObjectGone
from queueworker.resource import names
from queueworker.resource.urls import host_in_url
from queueworker.web.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

log = logging.getLogger(__name__)

NO_REDIS = "redis://127.0.0.1:9"
"""The discard port: nothing listens there."""
POLL_SECONDS = 0.5
DELETE_SECONDS = 60.0
"""Time for the operator to drain the object, which has nothing in flight."""
SLOTS = 4


class SelfTestError(Exception):
    """The installation does not route. The message says what was seen."""


@dataclass(frozen=True, slots=True)
class SelfTestOptions:
    """`host` is an address at which the operator reaches this process. The QueueWorker is made in `namespace`."""

    namespace: str
    host: str
    port: int = 8085
    tasks: int = 20
    redis_url: str = NO_REDIS
    timeout_seconds: float = 120.0


@dataclass(slots=True)
class Platform:
    """A queue with some tasks and an executor, which speak as docs/wire.md says, and an account of both."""

    waiting: deque[str]
    executed: Counter[str] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/tasks/next", self._next),
                Route("/tasks/{eval_id}/complete", self._complete, methods=["POST"]),
                Route("/tasks/{eval_id}/fail", self._fail, methods=["POST"]),
                Route("/status", self._status),
                Route("/health", self._health),
                Route("/capacity", self._capacity),
                Route("/execute", self._execute, methods=["POST"]),
            ]
        )

    @property
    def reported(self) -> int:
        return len(self.completed) + len(self.failed)

    async def _next(self, _: Request) -> JSONResponse:
        if not self.waiting:
            return JSONResponse(None)
        return JSONResponse({"eval_id": self.waiting.popleft(), "code": "print(6 * 7)", "language": "python"})

    async def _complete(self, request: Request) -> JSONResponse:
        self.completed[request.path_params["eval_id"]] += 1
        return JSONResponse({"status": "completed"})

    async def _fail(self, request: Request) -> JSONResponse:
        self.failed[request.path_params["eval_id"]] = str((await request.json()).get("error"))
        return JSONResponse({"status": "failed"})

    async def _status(self, _: Request) -> JSONResponse:
        return JSONResponse({"queue_length": len(self.waiting)})

    async def _health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy", "service": "executor", "executor_id": "selftest"})

    async def _capacity(self, _: Request) -> JSONResponse:
        return JSONResponse({"executor_id": "selftest", "can_accept": True, "max_concurrent": SLOTS})

    async def _execute(self, request: Request) -> JSONResponse:
        eval_id = (await request.json())["eval_id"]
        self.executed[eval_id] += 1
        return JSONResponse({"eval_id": eval_id, "status": "completed", "output": "42\n", "error": "", "exit_code": 0})


async def self_test(options: SelfTestOptions, *, say: Callable[[str], None] = print) -> None:
    """Raises SelfTestError, CannotListen, or one of `cluster.FAILED` if the API server refuses or is away."""
    tasks = [f"selftest-{number}" for number in range(1, options.tasks + 1)]
    platform = Platform(deque(tasks))
    async with (
        serve(platform.app(), "::", options.port) as port,
        Cluster(lambda: None, in_pod=True) as cluster,
        _queue_worker(cluster, options, port, say) as name,
    ):
        say(f"{options.namespace}/{name} is to route {options.tasks} tasks")
        try:
            async with asyncio.timeout(options.timeout_seconds):
                while platform.reported < options.tasks:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise SelfTestError(
                f"{platform.reported} of {options.tasks} tasks were reported within {options.timeout_seconds:.0f} s, "
                f"{len(platform.executed)} were executed; {await _state(cluster, options.namespace, name)}"
            ) from error
    _check(platform)
    say(f"ok: {options.tasks} tasks were executed and reported once")


def _check(platform: Platform) -> None:
    if platform.failed:
        eval_id, error = next(iter(platform.failed.items()))
        raise SelfTestError(f"{len(platform.failed)} tasks failed, {eval_id} with: {error}")
    twice = [eval_id for eval_id, count in (platform.executed + platform.completed).items() if count != 2]
    if twice:
        raise SelfTestError(f"not executed and reported once each: {', '.join(twice)}")


@asynccontextmanager
async def _queue_worker(
    cluster: Cluster, options: SelfTestOptions, port: int, say: Callable[[str], None]
) -> AsyncIterator[str]:
    """The name of a QueueWorker that exists until the end of the block."""
    name = f"selftest-{uuid4().hex[:8]}"
    url = f"http://{host_in_url(options.host)}:{port}"
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "queue": {"url": url, "pollIntervalSeconds": 1},
            "executors": {"endpoints": [url]},
            "routing": {"drainSeconds": 5},
            "events": {"redisURL": options.redis_url},
        },
    }
    await cluster.create_object(options.namespace, body)
    try:
        yield name
    finally:
        await _delete(cluster, options.namespace, name)
        say(f"{options.namespace}/{name} is deleted")


async def _delete(cluster: Cluster, namespace: str, name: str) -> None:
    try:
        await cluster.delete_object(namespace, name)
        async with asyncio.timeout(DELETE_SECONDS):
            while await cluster.read_object(namespace, name) is not None:
                await asyncio.sleep(POLL_SECONDS)
    except ObjectGone:
        return
    except TimeoutError as error:
        raise SelfTestError(
            f"{namespace}/{name} was deleted, and is still there after {DELETE_SECONDS:.0f} s: no operator removes its "
            f"finalizer; kubectl patch queueworker {name} -n {namespace} --type=merge "
            """-p '{"metadata":{"finalizers":null}}' removes it"""
        ) from error


async def _state(cluster: Cluster, namespace: str, name: str) -> str:
    """What the object's status says, in one line."""
    body: dict[str, Any] = await cluster.read_object(namespace, name) or {}
    conditions = body.get("status", {}).get("conditions", [])
    ready = [f"{c['status']} ({c['reason']}: {c['message']})" for c in conditions if c["type"] == "Ready"]
    return f"Ready is {ready[0]}" if ready else "it has no status: no operator has taken it up"
