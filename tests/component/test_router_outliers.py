"""Executors that fail what they are given while their health checks succeed, over real HTTP."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from queueworker.resource.spec import Strategy
from queueworker.routing.executors import outliers
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.router import Router
    from queueworker.routing.snapshot import ExecutorSnapshot

ANSWERS: dict[str, Callable[[], Any]] = {
    "500": lambda: web.Response(status=500, text="oops"),
    "no JSON": lambda: web.Response(text="<html>"),
    "a broken connection": lambda: "reset",
}


def seen(router: Router, name: str) -> ExecutorSnapshot:
    return next(e for e in router.snapshot().executors if e.name == name)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_executor_that_fails_task_after_task_is_ejected_and_status_shows_why(
    queue: StubQueue, redis_url: str, answer: str
) -> None:
    async with StubExecutor(name="bad") as bad, StubExecutor(name="good", delay=0.05) as good:
        bad.answers.extend(ANSWERS[answer]() for _ in range(100))
        queue.submit(*(f"t{i}" for i in range(60)))
        async with running(queue, [bad, good], redis_url, routing={"strategy": "LeastLoaded"}) as router:
            await queue.reported(60, timeout=30)
            shown = seen(router, "bad")
            snapshot = router.snapshot()
    assert len(bad.executed) == outliers.CONSECUTIVE_FAILURES
    assert len(queue.failed) == outliers.CONSECUTIVE_FAILURES
    assert not shown.healthy
    assert shown.reason.startswith("ejected for 10 s after 5 failures in a row: ")
    assert (snapshot.healthy, snapshot.counters.ejections) == (1, 1)


async def test_a_lone_executor_is_never_ejected(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor() as executor:
        executor.answers.extend(web.Response(status=500) for _ in range(20))
        queue.submit(*(f"t{i}" for i in range(30)))
        async with running(queue, [executor], redis_url) as router:
            await queue.reported(30)
            assert router.snapshot().counters.ejections == 0
    assert (len(queue.failed), len(queue.completed)) == (20, 10)


async def test_a_bad_batch_of_tasks_ejects_no_more_than_half_of_the_pool_which_comes_back_when_the_rest_dies(
    queue: StubQueue, redis_url: str
) -> None:
    checks = {"healthCheck": {"periodSeconds": 1}}
    async with AsyncExitStack() as stack:
        pool = [await stack.enter_async_context(StubExecutor(name=f"executor-{i}")) for i in range(4)]
        for executor in pool:
            executor.answers.extend(web.Response(status=500) for _ in range(20))
        queue.submit(*(f"t{i}" for i in range(60)))
        async with running(queue, pool, redis_url, executors=checks, routing={"strategy": "RoundRobin"}) as router:
            await queue.reported(60)
            assert router.snapshot().counters.ejections == router.snapshot().healthy == 2
            ejected = {e.name for e in router.snapshot().executors if not e.healthy}
            for executor in pool:
                if executor.name not in ejected:
                    executor.healthy = False
            await until(lambda: {e.name for e in router.snapshot().executors if e.healthy} & ejected)


async def test_tasks_that_fail_fast_on_one_executor_alone_do_not_drain_the_queue_into_it(
    queue: StubQueue, redis_url: str
) -> None:
    async with StubExecutor(name="sour") as sour, StubExecutor(name="good", delay=0.1) as good:
        sour.answers.extend(web.json_response({"status": "failed", "error": "no docker"}) for _ in range(1000))
        queue.submit(*(f"t{i}" for i in range(60)))
        async with running(
            queue, [sour, good], redis_url, executors={"concurrency": 4}, routing={"strategy": "LeastLoaded"}
        ) as router:
            await queue.reported(60, timeout=30)
            assert router.snapshot().counters.ejections == 0, "a task's failure is not the executor's"
            await until(lambda: all(e.in_flight == 0 for e in router.snapshot().executors))
    assert len(sour.executed) < 40, "half is fair"
    assert Counter(queue.reports.values()) == {1: 60}


class Unreliable(StubExecutor):
    """Fails four of five tasks with 500."""

    async def execute(self, request: web.Request) -> web.StreamResponse:
        if len(self.executed) % 5 == 4:
            return await super().execute(request)
        self.executed.append((await request.json())["eval_id"])
        return web.Response(status=500, text="oops")


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_what_one_executor_fails_is_done_by_the_others_under_every_strategy(
    queue: StubQueue, redis_url: str, strategy: str
) -> None:
    retry = {"attempts": 3, "backoffSeconds": 0}
    async with (
        Unreliable(name="bad") as bad,
        StubExecutor(name="good-1", delay=0.02) as one,
        StubExecutor(name="good-2", delay=0.02) as two,
    ):
        queue.submit(*(f"t{i}" for i in range(100)))
        async with running(queue, [bad, one, two], redis_url, routing={"strategy": strategy, "retry": retry}) as router:
            await queue.reported(100, timeout=60)
            assert router.snapshot().counters.ejections >= 1
            assert "failures" in seen(router, "bad").reason
    assert (len(queue.completed), queue.failed) == (100, {})
    assert len(bad.executed) < 20
