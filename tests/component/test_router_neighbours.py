"""Several routers in one process, on one Redis: what they share, and what each has to itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from queueworker.routing.memory_budget import MemoryAccount, MemoryBudget
from tests.support.redis_state import journals
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, until

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_two_objects_on_one_queue_share_its_tasks_and_report_each_once(queue: StubQueue, redis_url: str) -> None:
    ids = [f"t{i}" for i in range(200)]
    async with (
        StubExecutor(name="one", delay=0.01) as one,
        StubExecutor(name="two", delay=0.01) as two,
        running(queue, [one], redis_url, group="red/legacy", executors={"concurrency": 2}) as first,
        running(queue, [two], redis_url, group="blue/legacy", executors={"concurrency": 2}) as second,
    ):
        await until(lambda: first.snapshot().healthy and second.snapshot().healthy)
        queue.submit(*ids)
        await queue.reported(200, timeout=30)
        await until(lambda: not first.snapshot().in_flight and not second.snapshot().in_flight)
        routed = [r.snapshot().counters.routed for r in (first, second)]
    assert queue.reports == Counter(ids)
    assert sorted(one.executed + two.executed) == sorted(ids)
    assert sum(routed) == 200
    assert min(routed) > 20, f"each has its part: {routed}"


async def test_objects_of_the_same_name_in_two_namespaces_have_a_journal_each(queue: StubQueue, redis_url: str) -> None:
    gate = asyncio.Event()
    async with StubQueue() as other, StubExecutor(gate=gate) as one, StubExecutor(gate=gate) as two:
        queue.submit("a")
        other.submit("a", "b")  # the same id, of another queue
        async with (
            running(queue, [one], redis_url, group="red/legacy"),
            running(other, [two], redis_url, group="blue/legacy", executors={"concurrency": 2}),
        ):
            await until(lambda: one.in_flight == 1 and two.in_flight == 2)

            async def apart() -> bool:
                return await journals(redis_url) == {"red/legacy": {"a"}, "blue/legacy": {"a", "b"}}

            await until(apart)
            gate.set()
            await queue.reported(1)
            await other.reported(2)
    assert queue.reports == {"a": 1}
    assert other.reports == {"a": 1, "b": 1}
    assert await journals(redis_url) == {}


async def test_a_router_that_died_is_succeeded_by_its_own_object_only(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    base = "queueworker:{red/legacy}:"
    async with Redis.from_url(redis_url) as redis:
        await redis.hset(f"{base}journal:dead", "a", b'{"state": "executed"}')
        await redis.sadd(f"{base}instances", "dead")
        async with running(queue, [executor], redis_url, group="blue/legacy") as router:
            await asyncio.sleep(2.5)  # longer than a heartbeat
            assert router.snapshot().counters.recovered == 0
        assert await redis.hlen(f"{base}journal:dead") == 1


@pytest.mark.parametrize("fault", ["its queue hangs", "its executor hangs", "its queue answers 500"])
async def test_an_object_routes_on_while_another_has_trouble(
    queue: StubQueue, executor: StubExecutor, redis_url: str, fault: str
) -> None:
    async with StubQueue() as bad, StubExecutor(name="bad") as stuck:
        stuck.gate = asyncio.Event() if fault == "its executor hangs" else None
        bad.submit(*(f"b{i}" for i in range(10)))
        if fault == "its queue answers 500":
            bad.pull_answers.extend(web.Response(status=500) for _ in range(100))
        async with HangingQueue() as hanging:
            wrong = hanging if fault == "its queue hangs" else bad
            async with (
                running(wrong, [stuck], redis_url, group="red/legacy", routing={"drainSeconds": 0}) as sick,
                running(queue, [executor], redis_url, group="blue/legacy"),
            ):
                await until(lambda: sick.snapshot().healthy)
                queue.submit(*(f"t{i}" for i in range(100)))
                await queue.reported(100)
                assert sick.snapshot().counters.routed == 0
                if stuck.gate is not None:
                    stuck.gate.set()
    assert set(queue.reports.values()) == {1}


class HangingQueue(StubQueue):
    """Answers no poll."""

    def __init__(self) -> None:
        super().__init__()

    async def next_task(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError


class Away(StubQueue):
    """Takes no report until `takes` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = asyncio.Event()

    async def report(
        self, request: web.Request, verb: str, take: Callable[[str, Any], None]
    ) -> web.StreamResponse | None:
        await self.takes.wait()
        return await super().report(request, verb, take)


async def test_an_object_whose_results_pile_up_leaves_memory_for_the_others_and_loses_nothing(redis_url: str) -> None:
    """One budget for both: the one whose queue takes no reports stops pulling, the other goes on."""
    budget = MemoryBudget(6 << 20)
    output = "x" * (1 << 18)
    ids = [f"t{i}" for i in range(60)]
    executors = {"concurrency": 20}
    async with Away() as stuck, StubQueue() as well, StubExecutor(name="one") as one, StubExecutor(name="two") as two:
        for executor in (one, two):
            executor.answers.extend(web.json_response({"status": "completed", "output": output}) for _ in ids)
        stuck.submit(*ids)
        async with running(stuck, [one], redis_url, group="red/legacy", executors=executors, budget=budget) as first:
            await until(lambda: "MEMORY_BUDGET_MEBIBYTES" in first.snapshot().hold)
            assert first.snapshot().memory_held > budget.max_bytes / 2, "it was alone, and used what there is"
            well.submit(*ids)
            async with running(well, [two], redis_url, group="blue/legacy", executors=executors, budget=budget):
                await well.reported(60, timeout=30)
                assert len(stuck.handed_out) < 60
                assert not stuck.reports
            assert budget.held < 1.5 * budget.max_bytes
            stuck.takes.set()
            await stuck.reported(60, timeout=30)
    assert well.reports == stuck.reports == Counter(ids)
    assert stuck.failed == {}
    assert budget.held == 0


async def test_a_router_that_holds_nothing_pulls_although_a_neighbour_holds_all_and_redis_is_away(
    queue: StubQueue, executor: StubExecutor
) -> None:
    budget = MemoryBudget(1 << 20)
    MemoryAccount(budget, lambda: None).take_task(1 << 20)
    queue.submit("a")
    async with running(queue, [executor], "redis://127.0.0.1:1", budget=budget):
        await queue.reported(1)
