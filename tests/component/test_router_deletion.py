"""The end of a router whose object was deleted: what is reported, and how long it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from queueworker.controller.status import Totals
from queueworker.controller.supervisor import RouterSupervisor
from queueworker.routing.router import Router
from queueworker.routing.snapshot import Phase
from tests.support.running import config, endpoints, running
from tests.support.stubs import StubExecutor, StubQueue, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def stuck() -> AsyncIterator[StubExecutor]:
    """An executor whose tasks do not end."""
    async with StubExecutor(gate=asyncio.Event()) as executor:
        yield executor
        assert executor.gate is not None
        executor.gate.set()


async def test_a_final_drain_ends_at_once_when_queue_and_executors_are_gone(
    queue: StubQueue, stuck: StubExecutor, redis_url: str
) -> None:
    queue.submit("a")
    router = Router(config(queue, redis_url, routing={"drainSeconds": 60}), endpoints([stuck]), worker_id="w")
    run = asyncio.create_task(router.run())
    await until(lambda: stuck.in_flight == 1)
    await queue.stop()
    await stuck.stop()
    await until(lambda: router.snapshot().healthy == 0)
    started = time.monotonic()
    await router.stop(final=True)
    await run
    assert router.snapshot().phase is Phase.STOPPED
    assert time.monotonic() - started < 20


async def test_a_drain_that_is_not_final_waits_for_queue_and_executors(
    queue: StubQueue, stuck: StubExecutor, redis_url: str
) -> None:
    queue.submit("a")
    async with running(queue, [stuck], redis_url, routing={"drainSeconds": 3}) as router:
        await until(lambda: stuck.in_flight == 1)
        await queue.stop()
        await stuck.stop()
        await until(lambda: router.snapshot().healthy == 0)
        started = time.monotonic()
    assert time.monotonic() - started >= 3


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_what_a_dead_router_left_is_reported_and_nothing_is_pulled(
    queue: StubQueue, executor: StubExecutor, redis_url: str, recovery: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a")
    configured = config(queue, redis_url, routing={"drainSeconds": 5, "recovery": recovery})
    dead = Router(configured, endpoints([executor]), worker_id="dead")
    run = asyncio.create_task(dead.run())
    await until(lambda: executor.in_flight == 1)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    executor.gate.set()
    queue.submit("b")
    supervisor = RouterSupervisor("next", lambda: None, Totals(), factory=Router)
    await supervisor.recover(configured, endpoints([executor]))
    await supervisor.stop(final=True)
    assert set(queue.reports) == {"a"}
    assert (set(queue.completed), set(queue.failed)) == (({"a"}, set()) if recovery == "Retry" else (set(), {"a"}))
    assert len(queue.waiting) == 1


async def test_a_recovery_without_redis_ends_in_a_bounded_time(queue: StubQueue, executor: StubExecutor) -> None:
    configured = config(queue, "redis://127.0.0.1:1", routing={"drainSeconds": 1})
    supervisor = RouterSupervisor("next", lambda: None, Totals(), factory=Router)
    async with asyncio.timeout(25):
        await supervisor.recover(configured, endpoints([executor]))
        await supervisor.stop(final=True)
