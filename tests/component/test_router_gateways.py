"""Executors behind something that answers in their place, over real HTTP."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from queueworker.resource.spec import Strategy
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = 120


class Misrouted(StubExecutor):
    """Its health checks succeed, and `/execute` answers with one status at once."""

    status = 404

    async def execute(self, request: web.Request) -> web.StreamResponse:
        self.executed.append((await request.json())["eval_id"])
        return web.Response(status=self.status, text="no such route")


async def started(stack: AsyncExitStack, pool: Sequence[StubExecutor]) -> None:
    for executor in pool:
        await stack.enter_async_context(executor)


@pytest.mark.parametrize(
    ("status", "strategy"),
    [
        *((404, strategy) for strategy in Strategy),
        *((status, "Random") for status in (401, 302, 501)),
    ],
)
async def test_an_executor_that_does_not_serve_execute_fails_no_task_while_others_complete(
    queue: StubQueue, redis_url: str, status: int, strategy: str
) -> None:
    bad = Misrouted(name="bad")
    bad.status = status
    pool = [bad, *(StubExecutor(name=f"executor-{i}", delay=0.01) for i in range(5))]
    async with AsyncExitStack() as stack:
        await started(stack, pool)
        queue.submit(*(f"t{i}" for i in range(TASKS)))
        async with running(queue, pool, redis_url, routing={"strategy": strategy}) as router:
            await queue.reported(TASKS, timeout=60)
            counters = router.snapshot().counters
    assert (len(queue.completed), queue.failed) == (TASKS, {})
    assert set(queue.reports.values()) == {1}
    assert counters.retried == 0, "a task that did not run is no second attempt"
    assert (counters.ejections, len(bad.executed)) == (1, 5), "it was ejected, and drew nothing more"


async def test_a_task_that_no_executor_serves_fails_with_the_last_answer_after_one_try_at_each(
    queue: StubQueue, redis_url: str
) -> None:
    pool = [Misrouted(name=f"executor-{i}") for i in range(3)]
    async with AsyncExitStack() as stack:
        await started(stack, pool)
        queue.submit("a")
        async with running(queue, pool, redis_url):
            await queue.reported(1)
    assert queue.failed == {"a": "Executor rejected task: no such route"}
    assert [executor.executed for executor in pool] == [["a"]] * 3
