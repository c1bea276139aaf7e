"""When a router pulls nothing new although slots are free."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from queueworker.routing.limits import Limits
from queueworker.routing.memory_budget import RESULT_COPIES, MemoryBudget
from queueworker.routing.snapshot import LinkReason
from tests.support.redis_state import journalled, journals
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from devcluster.redis_server import RedisServer

# Once a second a router looks again for polls that may start.
LONGER_THAN_HOUSEKEEPING_SECONDS = 1.5
IDS = [f"t{i}" for i in range(20)]
LARGE_RESULT = "x" * 100_000


class SlowToTake(StubQueue):
    """Hands out tasks, and takes no report until `takes` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = asyncio.Event()

    async def report(
        self, request: web.Request, verb: str, take: Callable[[str, Any], None]
    ) -> web.StreamResponse | None:
        await self.takes.wait()
        return await super().report(request, verb, take)


async def test_nothing_is_pulled_while_too_many_bytes_wait_for_their_report(
    executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.extend(web.json_response(result(eval_id, output=LARGE_RESULT)) for eval_id in IDS)
    budget = MemoryBudget(5 * RESULT_COPIES * len(LARGE_RESULT))
    async with SlowToTake() as queue:
        queue.submit(*IDS)
        async with running(queue, [executor], redis_url, budget=budget) as router:
            await until(lambda: len(executor.executed) >= 4)
            await asyncio.sleep(LONGER_THAN_HOUSEKEEPING_SECONDS)
            assert len(queue.handed_out) <= 6
            assert "MEMORY_BUDGET_MEBIBYTES" in router.snapshot().hold
            assert router.snapshot().in_flight == len(queue.handed_out)
            queue.takes.set()
            await queue.reported(20)
            await until(lambda: router.snapshot().memory_held < len(LARGE_RESULT))
    assert queue.reports == Counter(IDS)
    assert budget.held == 0


async def test_nothing_is_pulled_while_redis_is_away_and_the_journal_is_required(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    async with running(queue, [executor], own_redis.url, routing={"journal": "Required"}) as router:
        queue.submit("a")
        await queue.reported(1)
        own_redis.kill()
        await until(lambda: not router.snapshot().journal.ok)
        queue.submit("b")
        await asyncio.sleep(LONGER_THAN_HOUSEKEEPING_SECONDS)
        assert len(queue.waiting) == 1
        await asyncio.to_thread(own_redis.start)
        await queue.reported(2, 15)


async def test_nothing_is_pulled_while_the_queue_refuses_every_report(executor: StubExecutor, redis_url: str) -> None:
    async with StubQueue() as queue:
        queue.report_answers.extend(web.Response(status=500) for _ in range(200))
        queue.submit(*IDS)
        limits = Limits(max_stuck_reports=3)
        async with running(queue, [executor], redis_url, limits=limits) as router:
            await until(lambda: len(queue.report_answers) <= 190, 30)
            assert router.snapshot().queue.reason is LinkReason.INVALID_ANSWER
            polls = len(queue.polls)
            await until(lambda: len(queue.report_answers) <= 185, 30)
            assert len(queue.polls) == polls, "it polls while its reports are refused"
            queue.report_answers.clear()
            await queue.reported(20, 30)
    assert queue.reports == Counter(IDS)
    assert queue.failed == {}


@pytest.mark.parametrize("fits", [1, 10], ids=["one in a batch", "ten in a batch"])
async def test_results_that_do_not_fit_into_one_batch_are_all_journalled_before_they_are_reported(
    queue: StubQueue, redis_url: str, fits: int
) -> None:
    limits = Limits(max_batch_bytes=fits * len(LARGE_RESULT))
    gate = asyncio.Event()
    async with StubExecutor(gate=gate) as executor:
        executor.answers.extend(web.json_response(result(eval_id, output=LARGE_RESULT)) for eval_id in IDS)
        queue.submit(*IDS)
        async with running(queue, [executor], redis_url, executors={"concurrency": 20}, limits=limits) as router:
            await until(lambda: executor.in_flight == 20)
            queue.report_answers.extend(web.Response(status=500) for _ in IDS)
            gate.set()
            await until(lambda: not queue.report_answers)
            entries = await journalled(redis_url)
            assert {eval_id: entry["state"] for eval_id, entry in entries.items()} == dict.fromkeys(IDS, "executed")
            await queue.reported(20, 30)
            await until(lambda: router.snapshot().counters.events_published == 20)
    assert queue.reports == Counter(IDS)
    assert await journals(redis_url) == {}


async def test_tasks_that_nobody_could_run_stay_in_the_queue_and_the_log_says_so(
    queue: StubQueue, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with StubExecutor(healthy=False) as sick:
        queue.submit(*IDS[:6])
        async with running(queue, [sick], redis_url):
            await until(lambda: "6 tasks wait and no executor is healthy: nothing is pulled" in caplog.text, 20)
            assert queue.handed_out == []
            sick.healthy = True
            await queue.reported(6, 20)
            await until(lambda: "no tasks wait for an executor any more" in caplog.text, 30)
