"""What a successor does with the journal of a router that died: nothing is lost, and nothing is reported twice."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from redis.asyncio import Redis

from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.wire.outcome import Outcome
from tests.support.plug import plugged
from tests.support.redis_state import expire_leases, journals, leave
from tests.support.running import BASE, GROUP, running
from tests.support.stubs import StubExecutor, StubQueue, result, until


def task_bytes(eval_id: str) -> bytes:
    return orjson.dumps({"eval_id": eval_id, "code": "print(1)", "timeout": 5})


async def in_journals(redis_url: str, *eval_ids: str) -> bool:
    """Whether the group's journals hold entries of exactly these tasks."""
    return (await journals(redis_url)).get(GROUP, set()) == {*eval_ids}


async def test_a_task_that_was_pulled_before_a_crash_is_run_and_reported_by_the_successor(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    await leave(redis_url, queue, {"a": entries.encode_task(State.PULLED, queue.url, task_bytes("a"))})
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(1)
        assert router.snapshot().counters.recovered == 1
    assert executor.executed == ["a"]
    assert queue.completed.keys() == {"a"}
    assert await journals(redis_url) == {}


async def test_a_task_that_waits_for_a_health_check_is_in_the_journal(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    checks = {"periodSeconds": 60, "timeoutSeconds": 60}
    async with running(queue, [executor], redis_url, executors={"healthCheck": checks}) as router:
        await until(lambda: router.snapshot().healthy == 1)
        executor.health_gate = asyncio.Event()
        await asyncio.sleep(1.1)  # The last check is older than maxAgeSeconds: one goes before the task.
        queue.submit("a")
        await until(lambda: in_journals(redis_url, "a"))
        assert executor.executed == []
        executor.health_gate.set()
        await queue.reported(1)


async def test_a_batch_that_came_too_late_is_written_again_at_once(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: router.snapshot().journal.ok)
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            (lease,) = await redis.keys(f"{BASE}lease:*")
            await redis.set(lease, 2, keepttl=True)  # as a heartbeat leaves it that overtook two batches
        queue.submit("a")
        await queue.reported(1, timeout=2)
        await until(lambda: router.snapshot().counters.events_published == 1)
    assert await journals(redis_url) == {}


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_a_task_that_was_executing_is_treated_as_recovery_says(
    queue: StubQueue, executor: StubExecutor, redis_url: str, recovery: str
) -> None:
    await leave(
        redis_url, queue, {"a": entries.encode_task(State.EXECUTING, queue.url, task_bytes("a"), 1, "executor-9")}
    )
    async with running(queue, [executor], redis_url, routing={"recovery": recovery}):
        await queue.reported(1)
    if recovery == "Retry":
        assert queue.completed.keys() == {"a"}
    else:
        assert queue.failed == {"a": "the router died while executor executor-9 ran the task"}
        assert executor.executed == []


async def test_a_task_that_was_executed_is_reported_with_its_result_and_not_run_again(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    done = Outcome(completed=True, result=orjson.dumps(result("a", output="kept")))
    await leave(redis_url, queue, {"a": entries.encode_outcome(queue.url, done)})
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert queue.completed["a"]["output"] == "kept"
    assert executor.executed == []


async def test_a_damaged_entry_is_set_aside_and_its_task_reported_as_failed(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    left = {
        "json": b"{not json",
        "state": b'{"state": "dreaming", "queue": "http://q:1"}',
        "other": entries.encode_task(State.PULLED, queue.url, task_bytes("somebody-else")),
        "good": entries.encode_task(State.PULLED, queue.url, task_bytes("good")),
    }
    await leave(redis_url, queue, left)
    async with running(queue, [executor], redis_url), Redis.from_url(redis_url) as redis:
        await queue.reported(4)
        assert queue.completed.keys() == {"good"}
        assert queue.failed.keys() == {"json", "state", "other"}
        assert all("cannot be read" in error for error in queue.failed.values())
        aside = await redis.hgetall(f"{BASE}quarantine")
    assert aside[b"json"] == b"{not json"
    assert aside.keys() == {b"json", b"state", b"other"}


async def test_a_live_instances_journal_is_left_alone(queue: StubQueue, executor: StubExecutor, redis_url: str) -> None:
    await leave(redis_url, queue, {"a": entries.encode_task(State.PULLED, queue.url, task_bytes("a"))})
    async with Redis.from_url(redis_url) as redis:
        await redis.set(f"{BASE}lease:dead", "1", px=2500)
        async with running(queue, [executor], redis_url):
            await asyncio.sleep(1.5)
            assert executor.executed == []
            await queue.reported(1)  # The lease has run out, and the next heartbeat takes the journal over.


async def test_a_successor_runs_and_reports_the_tasks_of_a_router_that_vanished(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a", "b")
    two = {"concurrency": 2}
    async with plugged(queue, [executor], redis_url, executors=two) as (_, plug):
        await until(lambda: executor.in_flight == 2)
        await until(lambda: in_journals(redis_url, "a", "b"))
        plug.pulled = True
        await expire_leases(redis_url)
        executor.gate.set()
        async with running(queue, [executor], redis_url, executors=two) as successor:
            await queue.reported(2)
            assert successor.snapshot().counters.recovered == 2
    assert queue.reports == {"a": 1, "b": 1}


async def test_a_router_that_was_declared_dead_drops_what_its_successor_has_and_keeps_the_rest(
    queue: StubQueue, redis_url: str
) -> None:
    gate = asyncio.Event()
    async with (
        StubExecutor(gate=gate) as slow,
        StubExecutor() as quick,
        plugged(queue, [slow], redis_url, executors={"concurrency": 2}) as (frozen, plug),
    ):
        queue.submit("a")
        await until(lambda: in_journals(redis_url, "a"))
        plug.pulled = True
        await expire_leases(redis_url)
        async with running(queue, [quick], redis_url, suspend=True) as successor:
            await queue.reported(1)
            assert quick.executed == ["a"]
            plug.pulled = False
            queue.submit("b")
            await until(lambda: slow.executed == ["a", "b"])
            await until(lambda: in_journals(redis_url, "b"))
            assert frozen.in_flight.keys() == {"b"}
            gate.set()
            await queue.reported(2)
            await until(lambda: frozen.snapshot().rivals == successor.snapshot().rivals == 1)
            await until(lambda: in_journals(redis_url))
    assert queue.reports == {"a": 1, "b": 1}
