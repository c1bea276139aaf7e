"""Events, logs and kills: the parts of an asynchronous executor beside running tasks (docs/wire.md).

Its outcome is a flat event. Standard output and standard error come as one text, as a container engine keeps them, so
`error` is empty unless the executor itself ended the task.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from demo.services.serving import answer

PUBLISH_SECONDS = 30.0
"""Time for publishing an outcome; after that the executor gives up."""
MAX_KEPT_CHARS = 32 * 1024 * 1024
"""Logs of tasks that have ended are kept up to this many characters in all; the oldest are dropped."""
NOT_FOUND = "Container not found"

_log = logging.getLogger("executor")


def flat_event(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Channel and payload of the event that tells a result."""
    status = "failed" if result["status"] == "killed" else result["status"]
    event = {name: result[name] for name in ("eval_id", "output", "error", "exit_code", "executor_id")}
    event |= {"status": status, "completed_at": datetime.now(UTC).isoformat()}
    return f"evaluation:{'failed' if status == 'failed' else 'completed'}", event


class Publisher:
    """Publishes outcomes on Redis."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=5)

    async def publish(self, result: dict[str, Any]) -> None:
        """Publish the outcome; try for `PUBLISH_SECONDS`, then log that it is lost."""
        channel, event = flat_event(result)
        data = orjson.dumps(event)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                while True:
                    try:
                        await self._redis.publish(channel, data)
                    except (RedisError, OSError):
                        await asyncio.sleep(0.2)
                    else:
                        return
        except TimeoutError:
            _log.error("gave up publishing the outcome of %s: Redis is away", result["eval_id"])

    async def close(self) -> None:
        await self._redis.aclose()


@dataclass(slots=True)
class Container:
    """A task's container, as `/logs` and `/running` show it."""

    container_id: str
    timeout: int
    created: str
    output: Callable[[], str]
    """Its output so far."""
    kill: Callable[[], None]
    exit_code: int | None = None
    """None while it runs."""


class Containers:
    """The containers by eval_id: those that run, and those that ended last."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}

    def start(self, eval_id: str, timeout: int, output: Callable[[], str], kill: Callable[[], None]) -> Container:
        self._by_id.pop(eval_id, None)
        container = Container("", timeout, datetime.now(UTC).isoformat(), output, kill)
        self._by_id[eval_id] = container
        return container

    def end(self, result: dict[str, Any]) -> bool:
        """The task has ended. Returns whether its outcome is to be published: not of one that somebody killed."""
        container = self._by_id.get(result["eval_id"])
        if container is None:
            return False
        container.exit_code = result["exit_code"]
        container.output = lambda: str(result["output"])
        self._drop_oldest()
        return True

    def _drop_oldest(self) -> None:
        ended = {eval_id: c for eval_id, c in self._by_id.items() if c.exit_code is not None}
        size = sum(len(container.output()) + 1000 for container in ended.values())
        for eval_id, container in ended.items():
            if size <= MAX_KEPT_CHARS:
                break
            size -= len(container.output()) + 1000
            del self._by_id[eval_id]

    async def logs(self, request: Request) -> Response:
        eval_id = request.path_params["eval_id"]
        container = self._by_id.get(eval_id)
        known = container is not None
        return answer(
            {
                "eval_id": eval_id,
                "output": container.output() if container is not None else "",
                "error": "" if known else NOT_FOUND,
                "is_running": container is not None and container.exit_code is None,
                "exit_code": container.exit_code if container is not None else None,
            }
        )

    async def running(self, _request: Request) -> Response:
        running = [
            {
                "eval_id": eval_id,
                "container_id": container.container_id,
                "status": "running",
                "created": container.created,
                "timeout": container.timeout,
            }
            for eval_id, container in self._by_id.items()
            if container.exit_code is None
        ]
        return answer({"running_executions": running, "count": len(running)})

    async def kill(self, request: Request) -> Response:
        """Kill a task and remove its container. It has no event."""
        eval_id = request.path_params["eval_id"]
        container = self._by_id.get(eval_id)
        if container is None or container.exit_code is not None:
            return answer({"detail": NOT_FOUND}, 404)
        del self._by_id[eval_id]
        container.kill()
        return answer({"eval_id": eval_id, "status": "killed"})
