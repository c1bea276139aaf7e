"""Several routers in one process, on one Redis: what they share, and what each has to itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from queueworker.routing.http.large import LARGE_BYTES
from redis.asyncio import Redis

from queueworker.routing import router as router_module
from queueworker.routing.journal import entries, journal
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from devcluster.redis_server import RedisServer


@pytest.fixture
async def events(redis_url: str) -> AsyncIterator[list[Any]]:
    """The outcomes that were published, in order."""
    seen: list[Any] = []
    redis = Redis.from_url(redis_url)
    pubsub = redis.pubsub()
    await pubsub.psubscribe("evaluation:*")

    async def listen() -> None:
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                seen.append(orjson.loads(message["data"]))

    task = asyncio.create_task(listen())
    yield seen
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pubsub.aclose()  # type: ignore[no-untyped-call]
    await redis.aclose()


async def journals(redis_url: str) -> dict[str, set[str]]:
    """The ids in flight in each group's journals."""
    found: dict[str, set[str]] = {}
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        for key in await redis.keys("queueworker:*:journal:*"):
            group = str(key).split("{")[1].split("}")[0]
            found.setdefault(group, set()).update(str(eval_id) for eval_id in await redis.hkeys(key))
    return found


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


async def test_objects_of_one_name_in_two_namespaces_have_a_journal_each(queue: StubQueue, redis_url: str) -> None:
    gate = asyncio.Event()
    async with StubQueue() as other, StubExecutor(gate=gate) as one, StubExecutor(gate=gate) as two:
        queue.submit("a")
        other.submit("a", "b")  # the same id, of another queue
        async with (
            running(queue, [one], redis_url, group="red/legacy"),
            running(other, [two], redis_url, group="blue/legacy", executors={"concurrency": 2}),
        ):
            await until(lambda: one.in_flight == 1 and two.in_flight == 2)
            async with asyncio.timeout(5):
                while await journals(redis_url) != {"red/legacy": {"a"}, "blue/legacy": {"a", "b"}}:
                    await asyncio.sleep(0.02)
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
        await redis.sadd(f"{base}instances", "dead")
        await redis.hset(f"{base}journal:dead", "a", b'{"state": "executed"}')
        async with running(queue, [executor], redis_url, group="blue/legacy") as router:
            await asyncio.sleep(2.5)  # longer than a beat
            assert router.snapshot().counters.recovered == 0
        assert await redis.hlen(f"{base}journal:dead") == 1


@pytest.mark.parametrize("fault", ["its queue hangs", "its executor hangs", "its queue answers 500"])
async def test_one_objects_misery_does_not_stop_another(
    queue: StubQueue, executor: StubExecutor, redis_url: str, fault: str
) -> None:
    async with StubQueue() as bad, StubExecutor(name="bad") as stuck:
        stuck.gate = asyncio.Event() if fault == "its executor hangs" else None
        bad.submit(*(f"b{i}" for i in range(10)))
        if fault == "its queue answers 500":
            bad.pull_answers.extend(web.Response(status=500) for _ in range(100))
        async with Hanging() as hanging:
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


class Hanging(StubQueue):
    """Takes requests and answers none."""

    def __init__(self) -> None:
        super().__init__()

    async def _next(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError


async def test_an_event_of_megabytes_arrives_whole_and_then_its_entry_goes(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[Any]
) -> None:
    large = result("a", output="x" * 5 * LARGE_BYTES)
    executor.answers.append(web.json_response(large))
    queue.submit("a", "b")
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(2, timeout=30)
        await until(lambda: len(events) == 2)
        await until(lambda: router.snapshot().events_buffered == 0)
        assert router.snapshot().counters.events_published == 2
    assert {e["eval_id"]: e["result"] for e in events} == {"a": large, "b": result("b")}
    assert await journals(redis_url) == {}


async def test_a_task_and_a_result_of_megabytes_are_routed_as_they_are(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    code = 'print("ä")\n' * 200_000
    large = result("a", output="ö" * 3_000_000)
    executor.answers.append(web.json_response(large))
    queue.waiting.append({"eval_id": "a", "code": code, "timeout": 7})
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert executor.bodies == [{"eval_id": "a", "code": code, "timeout": 7}]
    assert queue.completed == {"a": large}
    assert await journals(redis_url) == {}


class SlowToTake(StubQueue):
    """Hands out tasks, and takes no report until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = asyncio.Event()

    async def _report(self, request: web.Request, take: Callable[[str, Any], None]) -> web.Response | None:
        await self.takes.wait()
        return await super()._report(request, take)


async def test_nothing_new_is_pulled_while_too_much_waits_for_its_report(
    executor: StubExecutor, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "MAX_OWED_BYTES", 400_000)
    ids = [f"t{i}" for i in range(20)]
    executor.answers.extend(web.json_response(result(eval_id, output="x" * 100_000)) for eval_id in ids)
    async with SlowToTake() as queue:
        queue.submit(*ids)
        async with running(queue, [executor], redis_url, executors={"concurrency": 1}) as router:
            await until(lambda: len(executor.executed) >= 4)
            await asyncio.sleep(1.5)  # once a second the router looks for pulls that may go on
            assert len(queue.handed_out) <= 5  # one may have been pulled while the fourth ended
            assert router.snapshot().in_flight == len(queue.handed_out)
            queue.takes.set()
            await queue.reported(20)
    assert queue.reports == Counter(ids)


async def test_nothing_new_is_pulled_while_redis_takes_no_events(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BUFFERED_BYTES", 300_000)
    ids = [f"t{i}" for i in range(20)]
    executor.answers.extend(web.json_response(result(eval_id, output="x" * 100_000)) for eval_id in ids)
    url = own_redis.url
    async with running(queue, [executor], url, executors={"concurrency": 1}) as router, Redis.from_url(url) as redis:
        await until(lambda: router.snapshot().journal.ok)
        await redis.acl_setuser("default", enabled=True, commands=["-publish"])
        queue.submit(*ids)
        await queue.reported(3)
        await asyncio.sleep(1.5)  # once a second the router looks for pulls that may go on
        assert len(queue.handed_out) < 10  # some were pulled while the third was being reported
        await redis.acl_setuser("default", enabled=True, commands=["+publish"])
        await queue.reported(20)
        await until(lambda: router.snapshot().events_buffered == 0)
        assert router.snapshot().counters.events_dropped == 0
    assert queue.reports == Counter(ids)


async def test_a_result_too_large_for_the_journal_stays_executing_there_until_it_is_reported(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    large = result("a", output="x" * (entries.MAX_KEPT_BYTES + 1))
    executor.answers.append(web.json_response(large))
    queue.report_answers.append(web.Response(status=500))
    queue.submit("a")
    async with running(queue, [executor], redis_url), Redis.from_url(redis_url) as redis:
        await until(lambda: not queue.report_answers)
        (key,) = await redis.keys("queueworker:*:journal:*")
        assert orjson.loads(await redis.hget(key, "a") or b"")["state"] == "executing"
        await queue.reported(1)
    assert queue.completed["a"] == large
    assert executor.executed == ["a"]
    assert await journals(redis_url) == {}


async def test_results_that_do_not_fit_into_one_batch_are_all_journalled_before_they_are_reported(
    queue: StubQueue, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BATCH_BYTES", 100_000)
    gate = asyncio.Event()
    async with StubExecutor(gate=gate) as executor:
        executor.answers.extend(web.json_response(result(f"t{i}", output="x" * 60_000)) for i in range(20))
        queue.submit(*(f"t{i}" for i in range(20)))
        async with running(queue, [executor], redis_url, executors={"concurrency": 20}) as router:
            await until(lambda: executor.in_flight == 20)
            queue.report_answers.extend(web.Response(status=500) for _ in range(20))
            gate.set()
            await until(lambda: not queue.report_answers)
            async with Redis.from_url(redis_url) as redis:
                (key,) = await redis.keys("queueworker:*:journal:*")
                states = [orjson.loads(entry)["state"] for entry in await redis.hvals(key)]
            assert states == ["executed"] * 20
            await queue.reported(20, timeout=30)
            await until(lambda: router.snapshot().counters.events_published == 20)
    assert set(queue.reports.values()) == {1}
    assert await journals(redis_url) == {}
