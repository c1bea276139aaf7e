"""Asynchronous executors answer `running` and publish the outcome, which is reported once."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from redis.asyncio import Redis

from queueworker.controller.managed_pool.pool import tasks_by_pod
from queueworker.routing.executors.async_outcomes import SILENCE_SECONDS
from queueworker.routing.in_flight import MAX_DEATHS
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from tests.support.demo_processes import demo_process
from tests.support.plug import plugged
from tests.support.redis_state import expire_leases, journalled, leave
from tests.support.running import config, running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devcluster.redis_server import RedisServer

RETRY = {"retry": {"attempts": 2, "backoffSeconds": 0}}


class AsyncExecutor(StubExecutor):
    """Answers `running`, after publishing what `publish_first` holds."""

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.redis: Redis = Redis.from_url(redis_url)
        self.publish_first: list[tuple[str, dict[str, Any]]] = []

    async def execute(self, request: web.Request) -> web.StreamResponse:
        task = await request.json()
        self.executed.append(task["eval_id"])
        for channel, payload in self.publish_first:
            await self.redis.publish(channel, orjson.dumps(payload))
            await asyncio.sleep(0.2)
        if self.answers and self.answers.popleft() == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(result(task["eval_id"], self.name, status="running", output="", container_id="c7"))

    async def completes(self, eval_id: str, **fields: Any) -> None:
        payload = {"eval_id": eval_id, "result": result(eval_id, self.name, **fields)}
        await self.redis.publish("evaluation:completed", orjson.dumps(payload))

    async def stop(self) -> None:
        await super().stop()
        await self.redis.aclose()


@pytest.fixture
async def executor(redis_url: str) -> AsyncIterator[AsyncExecutor]:
    async with AsyncExecutor(redis_url) as executor:
        yield executor


def channels(events: list[tuple[str, Any]]) -> list[str]:
    """Without their common beginning."""
    return [channel.removeprefix("evaluation:") for channel, _ in events]


async def test_an_outcome_that_comes_before_the_answer_is_taken_and_running_is_not_published_after_it(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    executor.publish_first = [("evaluation:completed", {"eval_id": "a", "result": result("a", output="early")})]
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
        await asyncio.sleep(0.3)
    assert queue.completed["a"]["output"] == "early"
    assert queue.reports == {"a": 1}
    assert channels(events) == ["completed"]


async def test_an_outcome_that_is_published_twice_is_reported_once(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: channels(events) == ["running"])
        assert [e.in_flight for e in router.snapshot().executors] == [1], "its slot stays taken"
        await executor.completes("a")
        await executor.completes("a", output="again")
        await queue.reported(1)
        await asyncio.sleep(0.3)
        assert [e.in_flight for e in router.snapshot().executors] == [0]
    assert queue.completed["a"]["output"] == "1\n"
    assert queue.reports == {"a": 1}
    assert channels(events) == ["running", "completed", "completed"], "the router published it as well"


async def test_a_failure_that_is_published_without_a_result_fails_the_task_with_its_error(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await until(lambda: channels(events) == ["running"])
        for payload in (b"{not json", b'["a"]', b'{"eval_id": {}}', b'"a"', b'{"eval_id": "other", "error": "e"}'):
            await executor.redis.publish("evaluation:failed", payload)
        assert queue.reports == {}
        await executor.redis.publish("evaluation:failed", orjson.dumps({"eval_id": "a", "error": "killed"}))
        await queue.reported(1)
    assert queue.failed == {"a": "killed"}


async def test_an_outcome_is_waited_for_although_the_answer_was_lost(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    queue.submit("known")
    async with running(queue, [executor], redis_url, routing=RETRY) as router:
        await until(lambda: channels(events) == ["running"])
        await executor.completes("known")
        await queue.reported(1)
        executor.answers.append("reset")
        queue.submit("a")
        await until(lambda: "a" in executor.executed)
        await asyncio.sleep(0.3)
        assert router.snapshot().in_flight == 1
        await executor.completes("a", output="published")
        await queue.reported(2)
        assert router.snapshot().counters.retried == 0
    assert queue.completed["a"]["output"] == "published"
    assert executor.executed == ["known", "a"]


async def test_a_task_without_an_outcome_in_time_is_retried_as_retry_says_and_a_late_outcome_changes_nothing(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    queue.submit("once", timeout=1)
    async with running(queue, [executor], redis_url, executors={"concurrency": 2}) as router:
        await queue.reported(1, timeout=20)
        await executor.completes("once")
        await asyncio.sleep(0.3)
        assert queue.reports == {"once": 1}
        assert queue.failed == {"once": "executor executor-1: no outcome of the task was published within 11 s"}
        router.apply(config(queue, redis_url, executors={"concurrency": 2}, routing=RETRY))
        queue.submit("twice", timeout=1)
        await until(lambda: executor.executed == ["once", "twice", "twice"], 20)
        await executor.completes("twice")
        await queue.reported(2)
        assert router.snapshot().counters.retried == 1
    assert queue.completed.keys() == {"twice"}
    assert queue.reports == {"once": 1, "twice": 1}


async def test_an_outcome_that_is_published_after_redis_was_away_is_taken(
    queue: StubQueue, own_redis: RedisServer
) -> None:
    async with AsyncExecutor(own_redis.url) as executor:
        queue.submit("a", timeout=20)
        async with running(queue, [executor], own_redis.url) as router:
            await until(lambda: "a" in executor.executed)
            await asyncio.sleep(0.2)
            own_redis.kill()
            await until(lambda: not router.snapshot().journal.ok)
            await asyncio.to_thread(own_redis.start)
            async with Redis.from_url(own_redis.url) as redis:
                await until(lambda: subscribers(redis))
            await executor.completes("a")
            await queue.reported(1)
    assert queue.completed.keys() == {"a"}


async def test_a_subscription_whose_connection_hangs_is_replaced(queue: StubQueue, own_redis: RedisServer) -> None:
    """As one that a firewall has forgotten: nobody closes it."""
    async with AsyncExecutor(own_redis.url) as executor, Redis.from_url(own_redis.url) as redis:
        queue.submit("a", timeout=60)
        async with running(queue, [executor], own_redis.url):
            await until(lambda: "a" in executor.executed)
            (before,) = await subscriber_ids(redis)
            own_redis.pause()
            await asyncio.sleep(2 * SILENCE_SECONDS + 1)
            own_redis.resume()

            async def replaced() -> bool:
                now = await subscriber_ids(redis)
                return now != set() and before not in now

            await until(replaced)
            await executor.completes("a")
            await queue.reported(1)


async def subscribers(redis: Redis) -> int:
    return dict(await redis.pubsub_numsub("evaluation:completed"))[b"evaluation:completed"]


async def subscriber_ids(redis: Redis) -> set[str]:
    """The connections of those that listen to a channel."""
    return {client["id"] for client in await redis.client_list(_type="pubsub")}


@asynccontextmanager
async def left_running(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, **routing: Any
) -> AsyncIterator[None]:
    """A router is dead to others while the executor runs the task `a`. Its successor may take over at once."""
    queue.submit("a", timeout=1)
    async with plugged(queue, [executor], redis_url, routing=routing) as (_, plug):

        async def waited_for() -> bool:
            return "until" in (await journalled(redis_url)).get("a", {})

        await until(waited_for)
        plug.pulled = True
        await expire_leases(redis_url)
        yield


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_the_successor_of_a_dead_router_takes_the_outcome_that_is_published(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, recovery: str
) -> None:
    async with (
        left_running(queue, executor, redis_url, recovery=recovery),
        running(queue, [executor], redis_url, routing={"recovery": recovery}) as router,
    ):
        await until(lambda: router.snapshot().counters.recovered == 1)
        await asyncio.sleep(0.5)
        assert executor.executed == ["a"], "it was executed again although it may still run"
        await executor.completes("a", output="survived")
        await queue.reported(1)
        await until(lambda: router.snapshot().in_flight == 0)
    assert queue.completed["a"]["output"] == "survived"
    assert (executor.executed, queue.reports) == (["a"], {"a": 1})


async def test_an_executor_is_busy_with_the_task_of_a_dead_router(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str
) -> None:
    async with (
        StubExecutor(name="executor-2") as other,
        left_running(queue, executor, redis_url),
        running(queue, [executor, other], redis_url, executors={"concurrency": 1}) as router,
    ):
        await until(lambda: router.snapshot().counters.recovered == 1)
        queue.submit(*"bcdef")
        await queue.reported(5)
        assert executor.executed == ["a"], "it has one slot"
        assert tasks_by_pod(router.snapshot()) == {"executor-1": 1, "executor-2": 0}
        await executor.completes("a")
        await queue.reported(6)
        await until(lambda: tasks_by_pod(router.snapshot()) == {"executor-1": 0, "executor-2": 0})


async def test_an_executor_that_is_not_in_the_pool_any_more_may_run_the_task_of_a_dead_router(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str
) -> None:
    """The pods of a managed pool that are to go are kept from the router. This one is not idle."""
    async with (
        StubExecutor(name="executor-2") as other,
        left_running(queue, executor, redis_url),
        running(queue, [other], redis_url) as router,
    ):
        await until(lambda: router.snapshot().counters.recovered == 1)
        assert tasks_by_pod(router.snapshot()) == {"executor-1": 1, "executor-2": 0}
        await executor.completes("a")
        await queue.reported(1)
        await until(lambda: tasks_by_pod(router.snapshot()) == {"executor-2": 0})


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_the_successor_does_as_recovery_says_when_no_outcome_is_published(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, recovery: str
) -> None:
    task = orjson.dumps({"eval_id": "a", "code": "1", "timeout": 5})
    entry = entries.encode_task(State.EXECUTING, queue.url, task, 1, "executor-1", deadline=time.time() + 2)
    await leave(redis_url, queue, {"a": entry})
    async with running(queue, [executor], redis_url, routing={"recovery": recovery}) as router:
        await until(lambda: router.snapshot().in_flight == 1)
        await asyncio.sleep(0.5)
        assert (executor.executed, queue.reports) == ([], {})
        if recovery == "Retry":
            await until(lambda: executor.executed == ["a"])
            await asyncio.sleep(0.1)
            await executor.completes("a")
        await queue.reported(1)
        queue.submit("b")  # the slot that was held for it is free
        await until(lambda: "b" in executor.executed)
        await asyncio.sleep(0.1)
        await executor.completes("b")
        await queue.reported(2)
    if recovery == "Fail":
        assert queue.failed == {"a": "the router died while executor executor-1 ran the task"}
    assert queue.reports == {"a": 1, "b": 1}


async def test_a_task_whose_routers_keep_dying_is_not_run_again_when_no_outcome_is_published(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str
) -> None:
    task = orjson.dumps({"eval_id": "a", "code": "1", "timeout": 5})
    deaths = MAX_DEATHS - 1
    entry = entries.encode_task(State.EXECUTING, queue.url, task, 1, "executor-1", deadline=time.time(), deaths=deaths)
    await leave(redis_url, queue, {"a": entry})
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert queue.failed == {"a": f"its router died {MAX_DEATHS} times while it ran"}
    assert executor.executed == []


async def test_a_deadline_by_a_clock_that_is_hours_ahead_holds_a_slot_no_longer_than_the_task_may_take(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str
) -> None:
    left = {}
    for eval_id, deadline in (("a", time.time() + 3600), ("b", 1e300)):
        task = orjson.dumps({"eval_id": eval_id, "code": "1", "timeout": 1})
        left[eval_id] = entries.encode_task(State.EXECUTING, queue.url, task, 1, "executor-1", deadline=deadline)
    await leave(redis_url, queue, left)
    async with running(queue, [executor], redis_url, routing={"recovery": "Fail"}, executors={"concurrency": 2}):
        await queue.reported(2, timeout=30)
    assert set(queue.failed.values()) == {"the router died while executor executor-1 ran the task"}


async def test_the_demos_asynchronous_executor_runs_real_tasks_and_each_is_reported_once(
    queue: StubQueue, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    ids = [f"t{i}" for i in range(40)]
    with demo_process("executor", "--port", "0", "--async", "--redis-url", redis_url, "--max-concurrent", "4") as demo:
        stub = StubExecutor(name="demo")
        stub.port = int(demo.url.rpartition(":")[2])
        queue.submit(*ids)
        queue.submit("bad", code="raise SystemExit('no')")
        async with running(queue, [stub], redis_url, executors={"concurrency": 4}) as router:
            await queue.reported(41, timeout=60)
            await until(lambda: router.snapshot().in_flight == 0)
        assert router.snapshot().events_buffered == 0
        await until(lambda: channels(events).count("completed") + channels(events).count("failed") >= 41)
    # The executors' own outcomes and no second ones; `running` is not published after an outcome that came first.
    assert (channels(events).count("completed"), channels(events).count("failed")) == (40, 1)
    assert channels(events).count("running") <= 41
    assert sorted(queue.completed) == sorted(ids)
    assert queue.failed.keys() == {"bad"}
    assert set(queue.reports.values()) == {1}


async def test_kills_and_lost_events_end_with_the_outcome_that_really_was(
    queue: StubQueue, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    """The executor publishes on a Redis that is not there: all of its events are lost."""
    lost = ("--redis-url", "redis://127.0.0.1:1")
    with demo_process("executor", "--port", "0", "--async", *lost, "--max-concurrent", "4") as demo:
        stub = StubExecutor(name="demo")
        stub.port = int(demo.url.rpartition(":")[2])
        queue.submit("good", code="print('fine')", timeout=60)
        queue.submit("bad", code="print('no luck'); raise SystemExit(3)", timeout=60)
        queue.submit("killed", code="import time; time.sleep(60)", timeout=60)
        async with running(queue, [stub], redis_url, executors={"concurrency": 3}) as router:
            await until(lambda: channels(events).count("running") == 3)
            with demo.client() as client:
                assert client.post("/kill/killed").status_code == 200
            await queue.reported(3, timeout=30)
            await until(lambda: router.snapshot().in_flight == 0)
    assert queue.completed["good"].items() >= {"status": "completed", "output": "fine\n", "exit_code": 0}.items()
    assert queue.failed["bad"] == "exit code 3: no luck"
    assert "the task was killed, or the executor lost it" in queue.failed["killed"]
    assert sorted(channels(events)) == ["completed", "failed", "failed", "running", "running", "running"]
    (completed,) = [payload for channel, payload in events if channel == "evaluation:completed"]
    assert completed["output"] == "fine\n"
