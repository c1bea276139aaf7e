"""How a router ends or pauses, and what it leaves to its successor."""

from __future__ import annotations

import asyncio
import time

from queueworker.routing.router import Router
from queueworker.routing.snapshot import Phase
from tests.support.redis_state import journals
from tests.support.running import GROUP, config, endpoints, running
from tests.support.stubs import StubExecutor, StubQueue, until


async def test_a_router_that_stops_waits_for_what_runs_and_leaves_the_rest_to_its_successor(
    queue: StubQueue, redis_url: str
) -> None:
    async with StubExecutor(delay=0.5) as quick:
        queue.submit("a")
        async with running(queue, [quick], redis_url):
            await until(lambda: quick.in_flight == 1)
        assert queue.completed.keys() == {"a"}
    async with StubExecutor(gate=asyncio.Event()) as stuck:
        queue.submit("b")
        started = time.monotonic()
        async with running(queue, [stuck], redis_url, routing={"drainSeconds": 1}):
            await until(lambda: stuck.in_flight == 1)
        assert time.monotonic() - started < 5
        assert queue.failed == {}
        assert await journals(redis_url) == {GROUP: {"b"}}
        assert stuck.gate is not None
        stuck.gate.set()
        async with running(queue, [stuck], redis_url):
            await queue.reported(2)
    assert queue.reports == {"a": 1, "b": 1}


async def test_a_final_stop_reports_what_cannot_finish(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(gate=asyncio.Event()) as stuck:
        queue.submit("a")
        router = Router(config(queue, redis_url, routing={"drainSeconds": 1}), endpoints([stuck]), worker_id="w")
        run = asyncio.create_task(router.run())
        await until(lambda: stuck.in_flight == 1)
        await router.stop(final=True)
        await run
        assert router.snapshot().phase is Phase.STOPPED
        assert stuck.gate is not None
        stuck.gate.set()
    assert queue.failed == {"a": "the QueueWorker was deleted before the task ended"}
    assert await journals(redis_url) == {}


async def test_suspension_drains_and_resumes_on_the_running_router(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    async with running(queue, [executor], redis_url) as router:
        queue.submit("a")
        await queue.reported(1)
        router.apply(config(queue, redis_url, suspend=True))
        await until(lambda: router.snapshot().phase is Phase.IDLE)
        queue.submit("b")
        polls = len(queue.polls)
        await asyncio.sleep(1.5)
        assert len(queue.polls) == polls
        router.apply(config(queue, redis_url, suspend=False))
        await queue.reported(2)
