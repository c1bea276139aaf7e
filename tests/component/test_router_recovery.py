"""What a router's death, and the absence of its peers, do to tasks: nothing is lost, and nothing is reported twice."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import orjson
import pytest
from redis.asyncio import Redis

from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.router import Router
from queueworker.routing.snapshot import LinkReason, Phase
from queueworker.routing.wire.outcome import Outcome
from tests.support.running import GROUP, config, endpoints, running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer

BASE = f"queueworker:{{{GROUP}}}:"


async def leave(redis_url: str, queue: StubQueue, **left: bytes) -> None:
    """The journal of an instance that died: entries by eval_id. The queue waits for their reports."""
    async with Redis.from_url(redis_url) as redis:
        await redis.sadd(f"{BASE}instances", "dead")
        for eval_id, entry in left.items():
            await redis.hset(f"{BASE}journal:dead", eval_id, entry)
    queue.known.update(left)


def task_bytes(eval_id: str) -> bytes:
    return orjson.dumps({"eval_id": eval_id, "code": "print(1)", "timeout": 5})


async def journal_fields(redis_url: str) -> dict[str, int]:
    """How many entries each journal holds."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        return {str(key): await redis.hlen(key) for key in await redis.keys(f"{BASE}journal:*")}


async def test_a_task_that_was_pulled_before_a_crash_is_run_and_reported_by_the_successor(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    await leave(redis_url, queue, a=entries.encode_task(State.PULLED, queue.url, task_bytes("a")))
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(1)
        assert router.snapshot().counters.recovered == 1
    assert executor.executed == ["a"]
    assert queue.completed.keys() == {"a"}
    assert await journal_fields(redis_url) == {}


async def test_a_task_that_waits_for_a_health_check_is_in_the_journal(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    checks = {"periodSeconds": 60, "timeoutSeconds": 60}
    async with running(queue, [executor], redis_url, executors={"healthCheck": checks}) as router:
        await until(lambda: router.snapshot().healthy == 1)
        executor.health_gate = asyncio.Event()
        await asyncio.sleep(1.1)  # older than maxAgeSeconds: it is asked again before it gets a task
        queue.submit("a")
        await until(lambda: queue.handed_out)
        await asyncio.sleep(0.3)
        assert list((await journal_fields(redis_url)).values()) == [1]
        executor.health_gate.set()
        await queue.reported(1)


async def test_a_batch_that_came_too_late_is_written_again_at_once(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: router.snapshot().journal.ok)
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            (lease,) = await redis.keys(f"{BASE}lease:*")
            await redis.set(lease, 2, keepttl=True)  # as a beat leaves it that overtook two batches
        queue.submit("a")
        await queue.reported(1, timeout=2)
        await until(lambda: router.snapshot().counters.events_published == 1)
    assert await journal_fields(redis_url) == {}


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_a_task_that_was_executing_is_treated_as_recovery_says(
    queue: StubQueue, executor: StubExecutor, redis_url: str, recovery: str
) -> None:
    await leave(redis_url, queue, a=entries.encode_task(State.EXECUTING, queue.url, task_bytes("a"), 1, "executor-9"))
    async with running(queue, [executor], redis_url, routing={"recovery": recovery}):
        await queue.reported(1)
    if recovery == "Retry":
        assert queue.completed.keys() == {"a"}
    else:
        assert queue.failed == {"a": "the router died while executor executor-9 ran the task"}
        assert executor.executed == []


async def test_a_task_too_large_for_the_journal_is_reported_as_failed_by_the_successor(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    large = orjson.dumps({"eval_id": "a", "code": "x" * entries.MAX_KEPT_BYTES})
    await leave(redis_url, queue, a=entries.encode_task(State.EXECUTING, queue.url, large, 1, "executor-9"))
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert executor.executed == []
    assert "not kept" in queue.failed["a"]
    assert await journal_fields(redis_url) == {}


async def leave_parts(redis_url: str, eval_id: str, parts: dict[str, memoryview]) -> None:
    async with Redis.from_url(redis_url) as redis:
        for name, part in parts.items():
            await redis.hset(f"{BASE}journal:dead", b"\xffpart %b:%b" % (name.encode(), eval_id.encode()), bytes(part))


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "without a part"])
async def test_a_large_task_is_put_together_again_and_run_by_the_successor(
    queue: StubQueue, executor: StubExecutor, redis_url: str, lost: bool
) -> None:
    code = "x = 'ä\\n'\n" * 300_000
    large = orjson.dumps({"eval_id": "a", "code": code, "timeout": 5})
    parts = entries.parts(entries.TASK, large)
    if lost:
        parts.popitem()
    await leave_parts(redis_url, "a", parts)
    await leave(redis_url, queue, a=entries.encode_task(State.EXECUTING, queue.url, large, 1, "executor-9"))
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert [body["code"] for body in executor.bodies] == ([] if lost else [code])
    assert ("not kept" in queue.failed["a"]) if lost else queue.completed["a"]
    assert await journal_fields(redis_url) == {}


async def test_a_large_result_is_put_together_again_and_reported_and_its_task_not_run_again(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    done = Outcome(completed=True, result=orjson.dumps(result("a", output="kept\n" * 500_000)))
    await leave_parts(redis_url, "a", entries.parts(entries.RESULT, done.result or b""))
    await leave(redis_url, queue, a=entries.encode_outcome(queue.url, done))
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert queue.completed["a"]["output"] == "kept\n" * 500_000
    assert executor.executed == []
    assert await journal_fields(redis_url) == {}


async def test_a_task_that_was_executed_is_reported_with_its_result_and_not_run_again(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    done = Outcome(completed=True, result=orjson.dumps(result("a", output="kept")))
    await leave(redis_url, queue, a=entries.encode_outcome(queue.url, done))
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert queue.completed["a"]["output"] == "kept"
    assert executor.executed == []


async def test_a_damaged_entry_is_set_aside_and_its_task_reported_as_failed(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    await leave(
        redis_url,
        queue,
        json=b"{not json",
        state=b'{"state": "dreaming", "queue": "http://q:1"}',
        other=entries.encode_task(State.PULLED, queue.url, task_bytes("somebody-else")),
        good=entries.encode_task(State.PULLED, queue.url, task_bytes("good")),
    )
    async with running(queue, [executor], redis_url), Redis.from_url(redis_url) as redis:
        await queue.reported(4)
        assert queue.completed.keys() == {"good"}
        assert queue.failed.keys() == {"json", "state", "other"}
        assert all("cannot be read" in error for error in queue.failed.values())
        aside = await redis.hgetall(f"{BASE}quarantine")
    assert aside[b"json"] == b"{not json"
    assert aside.keys() == {b"json", b"state", b"other"}


async def test_a_live_instances_journal_is_left_alone(queue: StubQueue, executor: StubExecutor, redis_url: str) -> None:
    await leave(redis_url, queue, a=entries.encode_task(State.PULLED, queue.url, task_bytes("a")))
    async with Redis.from_url(redis_url) as redis:
        await redis.set(f"{BASE}lease:dead", "1", px=2500)
        async with running(queue, [executor], redis_url):
            await asyncio.sleep(1.5)
            assert executor.executed == []
            await queue.reported(1)  # the lease has run out, and the next beat takes over


async def test_two_routers_share_a_queue_and_one_takes_over_the_others_tasks_when_it_vanishes(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a", "b")
    first = Router(config(queue, redis_url, executors={"concurrency": 2}), endpoints([executor]), worker_id="first")
    run = asyncio.create_task(first.run())
    await until(lambda: executor.in_flight == 2)
    await until_journal(redis_url, 2)
    # it vanishes: all that it does ends at once, nothing is flushed, its lease stays until it runs out
    await vanish(first, run)
    async with Redis.from_url(redis_url) as redis:
        for key in await redis.keys(f"{BASE}lease:*"):
            await redis.delete(key)
    executor.gate.set()
    async with running(queue, [executor], redis_url, executors={"concurrency": 2}) as second:
        await queue.reported(2)
        assert second.snapshot().counters.recovered == 2
    assert queue.reports == {"a": 1, "b": 1}


async def until_journal(redis_url: str, count: int) -> None:
    for _ in range(200):
        if sum((await journal_fields(redis_url)).values()) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the journal never held {count} entries: {await journal_fields(redis_url)}")


async def vanish(router: Router, run: asyncio.Task[None]) -> None:
    """As SIGKILL, within one process: no code of the router runs again."""
    router._journal.fenced = True  # nothing is written any more, nothing is given up
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def test_a_router_that_was_declared_dead_lets_go_of_its_tasks_and_keeps_what_nobody_else_saw(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a")
    async with running(queue, [executor], redis_url, executors={"concurrency": 4}) as router:
        await until(lambda: executor.in_flight == 1)
        await until_journal(redis_url, 1)
        await until(lambda: router.snapshot().journal.ok)
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            (lease,) = await redis.keys(f"{BASE}lease:*")
            me = str(lease).removeprefix(f"{BASE}lease:")
            # what a successor's beat does to an instance without a lease
            await redis.delete(lease, f"{BASE}journal:{me}")
            await redis.set(f"{BASE}fenced:{me}", "successor")
            await redis.srem(f"{BASE}instances", me)
        queue.submit("b")  # pulled by a router that does not know yet
        await until(lambda: "b" in executor.executed)
        await until(lambda: router.snapshot().in_flight == 1, timeout=5)
        executor.gate.set()
        await queue.reported(1)
        await asyncio.sleep(0.5)
    assert queue.reports == {"b": 1}, "`a` is the successor's to report"


async def test_redis_restarted_empty_in_the_middle_loses_nothing(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    executor.delay = 0.01
    queue.submit(*(f"t{i}" for i in range(300)))
    async with running(queue, [executor], own_redis.url, executors={"concurrency": 4}) as router:
        await queue.reported(50)
        own_redis.kill()
        await until(lambda: not router.snapshot().journal.ok)
        before = len(queue.reports)
        await queue.reported(before + 50)  # routing goes on without it
        await asyncio.to_thread(own_redis.start)
        await until(lambda: router.snapshot().journal.ok, 15)
        await queue.reported(300, 30)
        await until(lambda: router.snapshot().counters.events_published == 300)
        counters = router.snapshot().counters
    assert set(queue.reports.values()) == {1}
    assert counters.events_dropped == 0


async def test_with_a_required_journal_nothing_is_pulled_while_redis_is_away(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    async with running(queue, [executor], own_redis.url, routing={"journal": "Required"}) as router:
        queue.submit("a")
        await queue.reported(1)
        own_redis.kill()
        await until(lambda: not router.snapshot().journal.ok)
        queue.submit("b")
        await asyncio.sleep(1.5)
        assert len(queue.waiting) == 1
        await asyncio.to_thread(own_redis.start)
        await queue.reported(2, 15)


async def test_a_frozen_redis_holds_up_routing_for_a_moment_only(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    async with running(queue, [executor], own_redis.url) as router:
        queue.submit("a")
        await queue.reported(1)
        own_redis.pause()
        try:
            queue.submit(*(f"t{i}" for i in range(20)))
            await queue.reported(21, 15)
            assert router.snapshot().journal.reason is LinkReason.CONNECTION_FAILED
        finally:
            own_redis.resume()
        await until(lambda: router.snapshot().journal.ok, 15)
        await until(lambda: router.snapshot().events_buffered == 0)


async def test_what_is_done_while_the_queue_is_away_is_reported_when_it_is_back(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a", "b", "c")
    async with running(queue, [executor], redis_url, executors={"concurrency": 3}) as router:
        await until(lambda: executor.in_flight == 3)
        await queue.stop()
        executor.gate.set()
        await until(lambda: router.snapshot().consecutive_errors == 1)
        assert router.snapshot().queue.reason is LinkReason.CONNECTION_FAILED
        await queue.start()
        await queue.reported(3, 15)
        await until(lambda: router.snapshot().queue.ok)
        assert router.snapshot().consecutive_errors == 0
    assert queue.reports == {"a": 1, "b": 1, "c": 1}


async def test_a_queue_that_restarted_and_forgot_its_tasks_is_told_and_nothing_waits_for_ever(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: executor.in_flight == 1)
        queue.known.clear()
        executor.gate.set()
        await until(lambda: router.snapshot().counters.reports_unknown == 1)
        await until(lambda: router.snapshot().in_flight == 0)
        await until(lambda: router.snapshot().counters.events_published == 1)


async def test_stopping_waits_for_what_runs_and_leaves_the_rest_to_the_successor(
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
        assert sum((await journal_fields(redis_url)).values()) == 1
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
    assert await journal_fields(redis_url) == {}


async def test_moving_to_another_queue_reports_the_old_ones_tasks_to_the_old_one(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("old")
    async with StubQueue() as other, running(queue, [executor], redis_url, executors={"concurrency": 2}) as router:
        await until(lambda: executor.in_flight == 1)
        router.apply(config(other, redis_url, executors={"concurrency": 2}))
        other.submit("new")
        await until(lambda: executor.in_flight == 2)
        executor.gate.set()
        await other.reported(1)
        await queue.reported(1)
        assert other.completed.keys() == {"new"}
    assert queue.completed.keys() == {"old"}


async def test_moving_to_another_redis_leaves_nothing_behind_in_the_old_one(
    queue: StubQueue, executor: StubExecutor, redis_url: str, own_redis: RedisServer
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a")
    async with running(queue, [executor], redis_url, executors={"concurrency": 2}) as router:
        await until(lambda: executor.in_flight == 1)
        router.apply(config(queue, own_redis.url, executors={"concurrency": 2}))
        queue.submit("b")
        await until(lambda: executor.in_flight == 2)
        executor.gate.set()
        await queue.reported(2)
        await until(lambda: router.snapshot().journal.ok)
    assert await journal_fields(redis_url) == {}
    assert await journal_fields(own_redis.url) == {}
    assert queue.reports == {"a": 1, "b": 1}


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
