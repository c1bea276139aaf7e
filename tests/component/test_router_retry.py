"""Retries of ambiguous attempts, as `routing.retry` says, with a backoff that holds no slot."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, result, until


class Failing(StubExecutor):
    """Answers 500 to the task `a`, and keeps the times at which it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    async def execute(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["eval_id"] == "a":
            self.asked.append(asyncio.get_running_loop().time())
            return web.Response(status=500, text="oops")
        return await super().execute(request)


@pytest.mark.parametrize(
    "answer",
    [
        web.json_response(result("a", status="failed", error="no")),
        web.json_response(result("a", status="timeout", error="no")),
        web.Response(status=400, text="no"),
    ],
)
async def test_an_answer_is_final_however_many_attempts_are_allowed(
    queue: StubQueue, executor: StubExecutor, redis_url: str, answer: web.Response
) -> None:
    executor.answers.append(answer)
    queue.submit("a")
    retry = {"attempts": 5, "backoffSeconds": 0}
    async with running(queue, [executor], redis_url, routing={"retry": retry}) as router:
        await queue.reported(1)
        assert router.snapshot().counters.retried == 0
    assert executor.executed == ["a"]
    assert "no" in queue.failed["a"]


async def test_attempts_wait_twice_as_long_each_time_up_to_the_maximum_and_hold_no_slot_meanwhile(
    queue: StubQueue, redis_url: str
) -> None:
    async with Failing() as executor:
        queue.submit("a")
        retry = {"attempts": 4, "backoffSeconds": 1, "maxBackoffSeconds": 2}
        async with running(queue, [executor], redis_url, routing={"retry": retry}) as router:
            await until(lambda: len(executor.asked) == 2)
            queue.submit("b")
            await queue.reported(2)
            assert list(queue.reports) == ["b", "a"], "b waited for the slot of a task that backs off"
            assert router.snapshot().counters.retried == 3
    first, second, third, fourth = executor.asked
    assert second - first >= 1
    assert third - second >= 2
    assert fourth - third >= 2
    assert queue.failed == {"a": "Executor rejected task: oops"}


async def test_a_timeout_is_ambiguous_and_tried_again_only_as_retry_allows(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(gate=asyncio.Event()) as executor:
        queue.submit("a", timeout=1)
        retry = {"attempts": 2, "backoffSeconds": 0}
        async with running(queue, [executor], redis_url, routing={"retry": retry}) as router:
            await until(lambda: executor.executed == ["a", "a"], 20)
            assert router.snapshot().counters.retried == 1
            assert executor.gate is not None
            executor.gate.set()
            await queue.reported(1)
    assert queue.completed.keys() == {"a"}


async def test_an_execution_that_did_not_start_uses_up_no_attempt(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(name="busy") as busy:
        busy.answers.extend(web.Response(status=503) for _ in range(3))
        async with running(queue, [busy], redis_url) as router:
            queue.submit("a")
            await queue.reported(1)
            assert router.snapshot().counters.retried == 0
    assert busy.executed == ["a"] * 4
    assert queue.completed.keys() == {"a"}
