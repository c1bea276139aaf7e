"""Tasks and results of megabytes, within `routing.maxBodyMebibytes` and above it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from aiohttp import web

from queueworker.routing.limits import MIB
from queueworker.routing.snapshot import LinkReason
from tests.support.redis_state import journalled, journals
from tests.support.running import config, running
from tests.support.stubs import StubExecutor, StubQueue, result, until

ONE_MEBIBYTE = {"maxBodyMebibytes": 1}


def task_of(eval_id: str, size: int) -> bytes:
    """A task of exactly so many bytes."""
    empty = orjson.dumps({"eval_id": eval_id, "code": ""})
    return orjson.dumps({"eval_id": eval_id, "code": "x" * (size - len(empty))})


def result_of(size: int, eval_id: str = "a") -> bytes:
    """A result of exactly so many bytes."""
    return orjson.dumps(result(eval_id, output="x" * (size - len(orjson.dumps(result(eval_id, output=""))))))


async def test_a_task_and_a_result_of_megabytes_are_routed_and_published_as_they_are(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    code = 'print("ä")\n' * 200_000
    large = result("a", output="ö" * 1_000_000)
    executor.answers.append(web.json_response(large))
    queue.waiting.append({"eval_id": "a", "code": code, "timeout": 7})
    queue.submit("b")
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(2)
        await until(lambda: len(events) == 2)
        await until(lambda: router.snapshot().events_buffered == 0)
        assert router.snapshot().counters.events_published == 2
    assert executor.bodies[0] == {"eval_id": "a", "code": code, "timeout": 7}
    assert queue.completed == {"a": large, "b": result("b")}
    assert {e["eval_id"]: e["result"] for _, e in events} == queue.completed
    assert await journals(redis_url) == {}


async def test_a_result_of_megabytes_is_whole_in_the_journal_until_it_is_reported(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    large = result("a", output="x" * 5 * MIB)
    executor.answers.append(web.json_response(large))
    queue.report_answers.append(web.Response(status=500))
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await until(lambda: not queue.report_answers)
        entry = (await journalled(redis_url))["a"]
        assert (entry["state"], entry["result"]) == ("executed", large)
        await queue.reported(1)
    assert queue.completed["a"] == large
    assert executor.executed == ["a"]


async def test_what_is_exactly_as_large_as_the_limit_is_routed(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.waiting.append(task_of("a", MIB))
    queue.known.add("a")
    executor.answers.append(web.Response(body=result_of(MIB)))
    async with running(queue, [executor], redis_url, routing=ONE_MEBIBYTE):
        await queue.reported(1)
    assert queue.failed == {}


@pytest.mark.parametrize("chunked", [False, True], ids=["with Content-Length", "chunked"])
async def test_a_task_with_a_result_above_the_limit_fails_with_its_size_the_limit_and_the_field(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]], chunked: bool
) -> None:
    answer = web.Response(body=result_of(MIB + 1))
    if chunked:
        answer.enable_chunked_encoding()
    executor.answers.append(answer)
    queue.submit("a", "b")
    retry = {"retry": {"attempts": 5, "backoffSeconds": 0}}
    async with running(queue, [executor], redis_url, routing=ONE_MEBIBYTE | retry) as router:
        await queue.reported(2)
        await until(lambda: len(events) == 2)
        assert router.snapshot().counters.ejections == 0
    size = "more bytes" if chunked else "1,048,577 bytes, more"
    error = f"executor executor-1 answered with {size} than routing.maxBodyMebibytes allows (1 MiB)"
    assert queue.failed == {"a": error}
    assert executor.executed == ["a", "b"], "a task that ran to its end is not run again"
    assert ("evaluation:failed", {"eval_id": "a", "error": error}) in events
    assert queue.completed.keys() == {"b"}


@pytest.mark.parametrize("size", [MIB + 1, 4 * MIB])
async def test_a_task_above_the_limit_is_not_run_and_fails_with_its_size_the_limit_and_the_field(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]], size: int
) -> None:
    queue.waiting.append(task_of("a", size))
    queue.known.add("a")
    queue.submit("b")
    async with running(queue, [executor], redis_url, routing=ONE_MEBIBYTE) as router:
        await queue.reported(2)
        await until(lambda: len(events) == 2)
        assert router.snapshot().counters.invalid == 1
        assert router.snapshot().counters.pulls_lost_unreadable == 0
    error = f"the task has {size:,} bytes, more than routing.maxBodyMebibytes allows (1 MiB)"
    assert queue.failed == {"a": error}
    assert ("evaluation:failed", {"eval_id": "a", "error": error}) in events
    assert executor.executed == ["b"]


async def test_a_task_above_four_times_the_limit_is_counted_as_lost_and_named_in_status(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.waiting.append(task_of("a", 4 * MIB + 1))
    queue.submit("b")
    async with running(queue, [executor], redis_url, routing=ONE_MEBIBYTE) as router:
        await until(lambda: router.snapshot().queue.reason is LinkReason.INVALID_ANSWER)
        assert "4,194,304 bytes" in router.snapshot().queue.message
        await queue.reported(1)
        assert router.snapshot().counters.pulls_lost_unreadable == 1
    assert executor.executed == ["b"]


async def test_another_limit_applies_to_a_router_that_runs(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.extend(web.Response(body=result_of(2 * MIB, f"t{i}")) for i in (1, 2, 3))
    async with running(queue, [executor], redis_url, routing=ONE_MEBIBYTE) as router:
        for i, mebibytes in enumerate((1, 2, 1), 1):
            router.apply(config(queue, redis_url, routing={"maxBodyMebibytes": mebibytes}))
            queue.waiting.append(task_of(f"t{i}", 900_000))
            queue.known.add(f"t{i}")
            await queue.reported(i)
        await until(lambda: router.snapshot().in_flight == 0)
    assert (set(queue.completed), set(queue.failed)) == ({"t2"}, {"t1", "t3"})
    assert queue.reports == Counter(["t1", "t2", "t3"])
