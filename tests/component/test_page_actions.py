"""Retries of the page, with a real Redis and a queue that is slow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from redis.asyncio import Redis

from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import RouterConfig
from queueworker.routing.journal.failed_tasks import FailedTask, keys
from queueworker.web.actions import Actions
from tests.support.stubs import Server, until
from tests.support.web_source import FakeSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.resend import Sent

GROUP = "default/legacy"


@dataclass
class SlowQueue(Server):
    """Says that it has no such task, but only once `answers` is set; and takes what is submitted."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    submitted: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/tasks/{eval_id}", self._look_up), web.post("/tasks", self._submit)]

    async def _look_up(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.answers.wait()
        return web.json_response({"detail": "Task not found"}, status=404)

    async def _submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        return web.json_response({"status": "queued", "position": 1})


class Routed(FakeSource):
    """Of an object whose Redis is known."""

    redis_url = ""

    def config(self, group: str) -> RouterConfig | None:
        return RouterConfig(group=group, spec=QueueWorkerSpec(), redis_url=self.redis_url)


async def leave(redis_url: str, eval_ids: Sequence[str], queue_url: str) -> None:
    hash_key, index, size = keys(f"queueworker:{{{GROUP}}}:")
    async with Redis.from_url(redis_url) as redis:
        for eval_id in eval_ids:
            task = FailedTask(eval_id, "oops", 1, "executor-1", 1.0, queue_url, False, 2, orjson.dumps({"n": eval_id}))
            await redis.hset(hash_key, eval_id, task.encode())
            await redis.zadd(index, {eval_id: 1000})
            await redis.incrby(size, len(task.encode()))


async def test_a_task_that_is_being_sent_is_not_sent_by_a_second_click(redis_url: str) -> None:
    source = Routed()
    source.redis_url = redis_url
    actions = Actions(source, "a-token-of-some-length")
    async with SlowQueue() as queue:
        await leave(redis_url, ["t-1", "t-2"], queue.url)

        def click(eval_id: str) -> asyncio.Task[Sent]:
            return asyncio.create_task(actions.retry(GROUP, eval_id, ambiguous=False))

        first, other = click("t-1"), click("t-2")
        await until(lambda: queue.asked == 2)
        second = click("t-1")
        await until(lambda: second.done() or queue.asked == 3)
        queue.answers.set()
        await asyncio.gather(first, second, other)
        assert sorted(task["n"] for task in queue.submitted) == ["t-1", "t-2"]
        assert (first.result().done, second.result().done, other.result().done) == (True, False, True)
        assert second.result().message == "not sent: it is being sent at this moment"


async def test_a_task_whose_retry_has_failed_can_be_sent_again(redis_url: str) -> None:
    source = Routed()
    source.redis_url = redis_url
    actions = Actions(source, "a-token-of-some-length")
    async with SlowQueue() as queue:
        queue.answers.set()
        await leave(redis_url, ["t-1"], "http://127.0.0.1:9")
        assert not (await actions.retry(GROUP, "t-1", ambiguous=False)).done
        await leave(redis_url, ["t-1"], queue.url)
        assert (await actions.retry(GROUP, "t-1", ambiguous=False)).done
