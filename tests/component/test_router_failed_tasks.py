"""The record of failed tasks (the dead-letter queue) as a router writes it, on a real Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web
from redis.asyncio import Redis

from devcluster.redis_server import RedisServer
from queueworker.resend import FailedTasks
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.journal.failed_tasks import FailedTask
from queueworker.routing.wire.outcome import Outcome
from tests.support.redis_state import leave
from tests.support.running import BASE, GROUP, running
from tests.support.stubs import StubExecutor, StubQueue, result, until


async def record(redis_url: str) -> dict[str, FailedTask]:
    """By id, newest first."""
    tasks = FailedTasks(redis_url, GROUP)
    try:
        return {task.eval_id: task async for task in tasks.newest_first()}
    finally:
        await tasks.close()


async def recorded(redis_url: str, count: int) -> dict[str, FailedTask]:
    """The record, once it holds so many."""

    async def complete() -> bool:
        return len(await record(redis_url)) == count

    await until(complete)
    return await record(redis_url)


async def sizes(redis_url: str) -> tuple[int, int, int, int]:
    """Records, ids in the index, bytes as counted, and as they are."""
    async with Redis.from_url(redis_url) as redis:
        raw = await redis.hvals(f"{BASE}failed")
        counted = int(await redis.get(f"{BASE}failed:bytes") or 0)
        return len(raw), await redis.zcard(f"{BASE}failed:index"), counted, sum(map(len, raw))


def failure(eval_id: str, **fields: Any) -> web.Response:
    return web.json_response(result(eval_id, status="failed", error="Traceback", exit_code=1, **fields))


async def test_a_failed_task_is_recorded_with_what_it_takes_to_send_it_again(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.extend([failure("a"), "reset", web.Response(status=500, text="oops"), web.Response(text="<html>")])
    async with running(queue, [executor], redis_url):
        for i, eval_id in enumerate("abcde", 1):
            queue.submit(eval_id, priority=7)
            await queue.reported(i)
        found = await recorded(redis_url, 4)
    assert list(found) == ["d", "c", "b", "a"]
    assert (found["a"].error, found["a"].attempts, found["a"].executor) == ("Traceback", 1, "executor-1")
    assert found["a"].queue_url == queue.url
    assert orjson.loads(found["a"].task)["priority"] == 7
    assert {eval_id: task.ambiguous for eval_id, task in found.items()} == {"a": False, "b": True, "c": True, "d": True}
    assert {eval_id: task.error for eval_id, task in found.items()} == queue.failed


async def test_a_task_stays_ambiguous_after_an_attempt_that_may_have_run_until_an_executor_answers(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.extend(["reset", web.Response(status=400, text="no"), "reset", failure("b")])
    retry = {"retry": {"attempts": 2, "backoffSeconds": 0}}
    async with running(queue, [executor], redis_url, routing=retry):
        for i, eval_id in enumerate("ab", 1):
            queue.submit(eval_id)
            await queue.reported(i)
        found = await recorded(redis_url, 2)
    assert [(found[i].attempts, found[i].ambiguous) for i in "ab"] == [(2, True), (2, False)]


async def test_a_task_that_no_executor_was_asked_to_run_is_not_ambiguous_and_one_with_a_refused_result_is(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.report_answers.append(web.Response(status=413, text="too large"))
    executors = {"unavailableGraceSeconds": 0}
    async with running(queue, [executor], redis_url, executors=executors) as router:
        queue.submit("refused")
        await queue.reported(1)
        await until(lambda: router.snapshot().in_flight == 0)
        queue.submit("unavailable")
        await executor.stop()
        await queue.reported(2)
        found = await recorded(redis_url, 2)
    assert {eval_id: task.ambiguous for eval_id, task in found.items()} == {"unavailable": False, "refused": True}
    assert found["unavailable"].error == "No healthy executors available"


async def test_a_task_that_completes_under_the_same_id_leaves_the_record(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.extend([failure("a"), failure("b"), failure("a")])
    async with running(queue, [executor], redis_url):
        for eval_id in "ab":
            queue.submit(eval_id)
        await queue.reported(2)
        first = (await recorded(redis_url, 2))["a"]
        queue.submit("a")
        await until(lambda: queue.reports["a"] == 2)

        async def newer() -> bool:
            return (await record(redis_url))["a"].failed_at > first.failed_at

        await until(newer)
        queue.submit("a", "c")
        assert (await recorded(redis_url, 1)).keys() == {"b"}
    records, indexed, counted, real = await sizes(redis_url)
    assert (records, indexed) == (1, 1)
    assert counted == real


async def test_a_record_that_somebody_broke_by_hand_is_begun_anew(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.set(f"{BASE}failed", "oops")
        await redis.zadd(f"{BASE}failed:index", {"ghost": 1})
        executor.answers.extend(failure(f"t{i}") for i in range(3))
        async with running(queue, [executor], redis_url) as router:
            for i in range(3):
                queue.submit(f"t{i}")
                await queue.reported(i + 1)
                await until(lambda i=i: router.snapshot().counters.events_published == i + 1)  # type: ignore[misc]
            assert router.snapshot().journal.ok
            assert (await recorded(redis_url, 2)).keys() == {"t1", "t2"}
            await redis.delete(f"{BASE}failed")  # the index and the count of bytes are left
            executor.answers.append(failure("last"))
            queue.submit("last")
            assert (await recorded(redis_url, 1)).keys() == {"last"}
    records, indexed, counted, real = await sizes(redis_url)
    assert (records, indexed) == (1, 1)
    assert counted == real


async def test_a_task_fails_while_redis_is_out_of_memory_and_is_recorded_when_there_is_room(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    async with Redis.from_url(own_redis.url) as redis, running(queue, [executor], own_redis.url) as router:
        await until(lambda: router.snapshot().journal.ok)
        await redis.config_set("maxmemory", "1")
        executor.answers.append(failure("a"))
        queue.submit("a", "b")
        await queue.reported(2)
        await until(lambda: router.snapshot().counters.events_published == 2)
        assert router.snapshot().counters.journal_errors > 0
        await redis.config_set("maxmemory", "0")
        assert (await recorded(own_redis.url, 1)).keys() == {"a"}


async def test_a_task_that_fails_while_redis_is_away_is_recorded_when_it_is_back(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    async with running(queue, [executor], own_redis.url) as router:
        queue.submit("first")
        await queue.reported(1)
        own_redis.kill()
        await until(lambda: not router.snapshot().journal.ok)
        executor.answers.extend([failure("a"), failure("b")])
        queue.submit("a", "b")
        await queue.reported(3)
        queue.submit("b")  # fails, and completes before the failure could be recorded
        await until(lambda: queue.reports["b"] == 2)
        await asyncio.to_thread(own_redis.start)
        await until(lambda: router.snapshot().journal.ok, 15)
        assert (await recorded(own_redis.url, 1)).keys() == {"a"}


async def test_a_failure_that_a_dead_router_did_not_report_is_recorded_by_its_successor(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    failed = Outcome(completed=False, error="Traceback", result=orjson.dumps(result("a", status="failed")))
    raw = orjson.dumps({"eval_id": "a", "code": "1"})
    older = orjson.loads(entries.encode_outcome(queue.url, failed))
    for name in ("task", "attempt", "executor", "doubtful"):
        del older[name]  # as the version before wrote it
    left = {
        "a": entries.encode_outcome(queue.url, failed, raw, 3, "executor-9", ambiguous=True),
        "older": orjson.dumps(older),
        "running": entries.encode_task(
            State.EXECUTING, queue.url, orjson.dumps({"eval_id": "running", "code": "1"}), 1, "executor-9"
        ),
    }
    await leave(redis_url, queue, left)
    async with running(queue, [executor], redis_url, routing={"recovery": "Fail"}):
        await queue.reported(3)
        found = await recorded(redis_url, 3)
    assert (found["a"].task, found["a"].attempts, found["a"].executor) == (raw, 3, "executor-9")
    assert found["a"].ambiguous
    assert (found["older"].kept, found["older"].error) == (False, "Traceback")
    assert (found["running"].ambiguous, found["running"].executor) == (True, "executor-9")
    assert orjson.loads(found["running"].task)["eval_id"] == "running"
