"""Asynchronous executors answer `running` and publish the outcome: whichever way it comes, it is reported once."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from redis.asyncio import Redis

from devcluster.redis_server import RedisServer
from queueworker.routing.executors.async_outcomes import AsyncOutcomes
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from tests.support.demo_processes import demo_process
from tests.support.running import GROUP, config, running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BASE = f"queueworker:{{{GROUP}}}:"
RETRY = {"retry": {"attempts": 2, "backoffSeconds": 0}}


class AsyncExecutor(StubExecutor):
    """Answers `running`, after publishing what `publish_first` holds."""

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.redis: Redis = Redis.from_url(redis_url)
        self.publish_first: list[tuple[str, dict[str, Any]]] = []

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        task = await request.json()
        self.executed.append(task["eval_id"])
        for channel, payload in self.publish_first:
            await self.redis.publish(channel, orjson.dumps(payload))
            await asyncio.sleep(0.2)
        if self.answers and self.answers.popleft() == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(result(task["eval_id"], self.name, status="running", output=""))

    async def completes(self, eval_id: str, **fields: Any) -> None:
        payload = {"eval_id": eval_id, "result": result(eval_id, self.name, **fields)}
        await self.redis.publish("evaluation:completed", orjson.dumps(payload))


@pytest.fixture
async def executor(redis_url: str) -> AsyncIterator[AsyncExecutor]:
    async with AsyncExecutor(redis_url) as executor:
        yield executor
        await executor.redis.aclose()


@pytest.fixture
async def channels(redis_url: str) -> AsyncIterator[list[str]]:
    """The channels on which something was published, in order."""
    seen: list[str] = []
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        await pubsub.psubscribe("evaluation:*")

        async def listen() -> None:
            async for message in pubsub.listen():
                if message["type"] == "pmessage":
                    seen.append(message["channel"].decode().removeprefix("evaluation:"))

        task = asyncio.create_task(listen())
        yield seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_outcome_that_comes_before_the_answer_counts_and_nothing_says_running_after_it(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, channels: list[str]
) -> None:
    executor.publish_first = [("evaluation:completed", {"eval_id": "a", "result": result("a", output="early")})]
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
        await asyncio.sleep(0.3)
    assert queue.completed["a"]["output"] == "early"
    assert queue.reports == {"a": 1}
    assert channels == ["completed"]


async def test_an_outcome_that_is_published_twice_is_reported_once(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, channels: list[str]
) -> None:
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: channels == ["running"])
        assert [e.in_flight for e in router.snapshot().executors] == [1], "its slot stays taken"
        await executor.completes("a")
        await executor.completes("a", output="again")
        await queue.reported(1)
        await asyncio.sleep(0.3)
        assert [e.in_flight for e in router.snapshot().executors] == [0]
    assert queue.completed["a"]["output"] == "1\n"
    assert queue.reports == {"a": 1}
    assert channels == ["running", "completed", "completed"], "the router published it as well"


async def test_a_failure_that_is_published_with_no_result_fails_the_task_with_its_words(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, channels: list[str]
) -> None:
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await until(lambda: channels == ["running"])
        for payload in (b"{not json", b'["a"]', b'{"eval_id": {}}', b'"a"', b'{"eval_id": "other", "error": "e"}'):
            await executor.redis.publish("evaluation:failed", payload)
        assert queue.reports == {}
        await executor.redis.publish("evaluation:failed", orjson.dumps({"eval_id": "a", "error": "killed"}))
        await queue.reported(1)
    assert queue.failed == {"a": "killed"}


async def test_an_outcome_that_comes_although_the_answer_was_lost_is_waited_for(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, channels: list[str]
) -> None:
    queue.submit("known")
    async with running(queue, [executor], redis_url, routing=RETRY) as router:
        await until(lambda: channels == ["running"])
        await executor.completes("known")
        await queue.reported(1)
        executor.answers.append("reset")
        queue.submit("a")
        await until(lambda: "a" in executor.executed)
        await asyncio.sleep(0.3)
        assert router.snapshot().in_flight == 1
        await executor.completes("a", output="later")
        await queue.reported(2)
        assert router.snapshot().counters.retried == 0
    assert queue.completed["a"]["output"] == "later"
    assert executor.executed == ["known", "a"]


async def test_no_outcome_within_the_timeout_is_tried_again_as_retry_says_and_a_late_one_changes_nothing(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, channels: list[str]
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


async def test_redis_away_while_it_is_waited_for_costs_nothing_when_the_outcome_comes_afterwards(
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
                for _ in range(200):
                    if dict(await redis.pubsub_numsub("evaluation:completed"))[b"evaluation:completed"]:
                        break
                    await asyncio.sleep(0.02)
            await executor.completes("a")
            await queue.reported(1)
        await executor.redis.aclose()
    assert queue.completed.keys() == {"a"}


async def test_a_redis_that_says_nothing_any_more_is_left_for_a_new_connection(
    queue: StubQueue, own_redis: RedisServer
) -> None:
    """Its subscription's connection hangs, as one that a firewall has forgotten: nobody closes it."""
    async with AsyncExecutor(own_redis.url) as executor, Redis.from_url(own_redis.url) as redis:
        queue.submit("a", timeout=60)
        async with running(queue, [executor], own_redis.url):
            await until(lambda: "a" in executor.executed)
            await asyncio.sleep(0.2)
            (before,) = await redis.client_list(_type="pubsub")
            own_redis.pause()
            await asyncio.sleep(11)
            own_redis.resume()
            for _ in range(300):
                clients = await redis.client_list(_type="pubsub")
                if clients and all(client["id"] != before["id"] for client in clients):
                    break
                await asyncio.sleep(0.02)
            assert [c["id"] for c in clients] != [before["id"]], "it still listens where it hears nothing"
            await executor.completes("a")
            await queue.reported(1)
        await executor.redis.aclose()


async def test_a_subscription_ends_when_it_is_told_to_whatever_redis_does_meanwhile(own_redis: RedisServer) -> None:
    """A router whose subscription did not end would wait for it for ever, and never stop."""
    rng = Random(7)

    async def subscribed_for(seconds: float) -> bool:
        outcomes = AsyncOutcomes(own_redis.url, max_body_bytes=1024)
        listening = asyncio.create_task(outcomes.listen())
        await asyncio.sleep(seconds)
        listening.cancel()  # whoever waits would have it begin again
        await asyncio.wait({listening})
        stopping = asyncio.create_task(outcomes.stop_listening())
        ended, _ = await asyncio.wait({stopping}, timeout=15)
        return bool(ended)

    all_of_them = [asyncio.create_task(subscribed_for(4 * rng.random())) for _ in range(300)]
    for _ in range(3):
        await asyncio.sleep(0.5)
        own_redis.kill()
        await asyncio.sleep(0.7)
        await asyncio.to_thread(own_redis.start)
    assert all(await asyncio.gather(*all_of_them))


async def left_running(queue: StubQueue, redis_url: str, seconds: float) -> None:
    """A router has died while the asynchronous executor-1 ran the task `a`, whose time is up in so many seconds."""
    task = orjson.dumps({"eval_id": "a", "code": "1", "timeout": 5})
    entry = entries.encode_task(State.EXECUTING, queue.url, task, 1, "executor-1", deadline=time.time() + seconds)
    async with Redis.from_url(redis_url) as redis:
        await redis.sadd(f"{BASE}instances", "dead")
        await redis.hset(f"{BASE}journal:dead", "a", entry)
    queue.known.add("a")


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_the_successor_of_a_dead_router_takes_the_outcome_that_comes_by(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, recovery: str
) -> None:
    await left_running(queue, redis_url, 10)
    async with running(queue, [executor], redis_url, routing={"recovery": recovery}) as router:
        await until(lambda: router.snapshot().counters.recovered == 1)
        await asyncio.sleep(0.5)
        assert executor.executed == [], "it was executed again although it may still run"
        await executor.completes("a", output="survived")
        await queue.reported(1)
        await until(lambda: router.snapshot().in_flight == 0)
    assert queue.completed["a"]["output"] == "survived"
    assert (executor.executed, queue.reports) == ([], {"a": 1})


@pytest.mark.parametrize("recovery", ["Retry", "Fail"])
async def test_the_successor_does_as_recovery_says_when_no_outcome_comes_by(
    queue: StubQueue, executor: AsyncExecutor, redis_url: str, recovery: str
) -> None:
    await left_running(queue, redis_url, 2)
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


async def test_the_demos_asynchronous_executor_runs_real_tasks_and_each_is_reported_once(
    queue: StubQueue, redis_url: str, channels: list[str]
) -> None:
    ids = [f"t{i}" for i in range(40)]
    with demo_process("executor", "--port", "0", "--later", "--redis-url", redis_url, "--max-concurrent", "4") as demo:
        stub = StubExecutor(name="demo")
        stub.port = int(demo.url.rpartition(":")[2])
        queue.submit(*ids)
        queue.submit("bad", code="raise SystemExit('no')")
        async with running(queue, [stub], redis_url, executors={"concurrency": 4}) as router:
            await queue.reported(41, timeout=60)
            await until(lambda: router.snapshot().in_flight == 0)
        assert router.snapshot().events_buffered == 0
        await until(lambda: channels.count("completed") + channels.count("failed") >= 41)
    # the executor's own outcomes and no second ones; where one came first nothing says `running` after it
    assert (channels.count("completed"), channels.count("failed")) == (40, 1)
    assert channels.count("running") <= 41
    assert sorted(queue.completed) == sorted(ids)
    assert queue.failed.keys() == {"bad"}
    assert set(queue.reports.values()) == {1}
