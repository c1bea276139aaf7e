"""The pool's end, over real HTTP."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack

from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.counters import Counters
from queueworker.routing.executors.executor_pool import ExecutorPool
from queueworker.routing.http.transport import HttpTransport
from queueworker.routing.limits import Limits
from tests.support.running import endpoints
from tests.support.stubs import StubExecutor

MOMENTS = 100
EXECUTORS = 8
STEP_SECONDS = 0.0001
PATIENCE_SECONDS = 5.0


async def test_a_pool_closes_whatever_moment_its_health_checks_are_in() -> None:
    """A check may swallow its cancellation if its answer came just then. A router with such a check never drains."""
    async with AsyncExitStack() as stack:
        executors = [await stack.enter_async_context(StubExecutor(f"executor-{i}")) for i in range(EXECUTORS)]
        transport = HttpTransport()
        for moment in range(MOMENTS):
            pool = ExecutorPool(
                *(QueueWorkerSpec(), transport),
                rng=random.Random(1),
                clock=time.monotonic,
                on_free=lambda: None,
                on_change=lambda: None,
                counters=Counters(),
                limits=Limits(),
            )
            pool.set_endpoints(endpoints(executors))
            await asyncio.sleep(moment * STEP_SECONDS)
            await asyncio.wait_for(pool.close(), PATIENCE_SECONDS)
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("health of", "probe "))]
        await transport.close()
