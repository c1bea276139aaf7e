"""Two live routers of one object: the slots that one holds count as taken for the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.routing.router import Router
from tests.support.running import config, endpoints
from tests.support.stubs import StubExecutor, StubQueue, until

if TYPE_CHECKING:
    from queueworker.routing.config import RouterConfig


def router(configured: RouterConfig, worker_id: str, *executors: StubExecutor) -> tuple[Router, asyncio.Task[None]]:
    made = Router(configured, endpoints(executors), worker_id=worker_id)
    return made, asyncio.create_task(made.run())


async def test_a_successor_pulls_at_once_with_the_slots_that_the_draining_router_leaves_free(
    queue: StubQueue, redis_url: str
) -> None:
    gate = asyncio.Event()
    async with StubExecutor(gate=gate) as busy, StubExecutor(name="executor-2", gate=gate) as idle:
        configured = config(queue, redis_url, executors={"concurrency": 3}, routing={"drainSeconds": 30})
        old, old_run = router(configured, "old", busy)
        queue.submit("a", "b")
        await until(lambda: busy.in_flight == 2)
        await until(lambda: old.snapshot().in_flight == 2)
        stopping = asyncio.create_task(old.stop())
        queue.submit(*(f"new-{i}" for i in range(10)))
        new, new_run = router(configured, "new", busy, idle)
        await until(lambda: idle.in_flight == 3)
        await until(lambda: busy.in_flight == 3)
        assert {e.name: e.capacity for e in new.snapshot().executors} == {"executor-1": 1, "executor-2": 3}
        assert new.snapshot().rivals == 1
        await asyncio.sleep(1)
        assert (busy.most_in_flight, idle.most_in_flight) == (3, 3)
        gate.set()
        await stopping
        await old_run
        await queue.reported(12)
        await until(lambda: all(e.capacity == 3 for e in new.snapshot().executors))
        await until(lambda: new.snapshot().rivals == 0)
        await new.stop()
        await new_run
    assert set(queue.reports.values()) == {1}
    assert (busy.most_in_flight <= 3, idle.most_in_flight) == (True, 3)
