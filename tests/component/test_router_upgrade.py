"""A router takes over the journal that the previous version wrote: entries byte for byte as that version wrote them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from tests.support.redis_state import journals, leave
from tests.support.running import BASE, running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import Mapping

PULLED = (
    b'{"state":"pulled","queue":"URL","attempt":1,"executor":"","task":'
    b'{"eval_id":"pulled","code":"print(1)","language":"python","engine":"docker","timeout":5}}'
)
EXECUTING = (
    b'{"state":"executing","queue":"URL","attempt":2,"executor":"executor-9","task":'
    b'{"eval_id":"executing","code":"print(2)","language":"python","engine":"docker","timeout":5},"doubtful":true}'
)
ASYNCHRONOUS = (
    b'{"state":"executing","queue":"URL","attempt":1,"executor":"executor-9","task":'
    b'{"eval_id":"asynchronous","code":"print(3)","language":"python","engine":"docker","timeout":5},"until":UNTIL}'
)
COMPLETED = (
    b'{"state":"executed","queue":"URL","completed":true,"error":"","published":false,'
    b'"result":{"eval_id":"completed","status":"completed","output":"1.10"}}'
)
PUBLISHED = (
    b'{"state":"executed","queue":"URL","completed":true,"error":"","published":true,'
    b'"result":{"eval_id":"published","status":"completed","output":"1"}}'
)
FAILED = (
    b'{"state":"executed","queue":"URL","completed":false,"error":"Traceback","published":false,'
    b'"result":{"eval_id":"failed","status":"failed"},"doubtful":true,"attempt":3,"executor":"executor-9",'
    b'"task":{"eval_id":"failed","code":"print(1)","language":"python","engine":"docker","timeout":5}}'
)
TOO_LARGE = b'{"state":"executing","queue":"URL","attempt":1,"executor":"executor-9","task":null}'
TASK_IN_PARTS = b'{"state":"executing","queue":"URL","attempt":1,"executor":"executor-9","task":null,"parts":5}'
RESULT_IN_PARTS = (
    b'{"state":"executed","queue":"URL","completed":true,"error":"","published":false,"result":null,"parts":5}'
)
PART_BYTES = 262_144


def at(queue: StubQueue, entry: bytes) -> bytes:
    """The entry of a task of that queue."""
    return entry.replace(b'"URL"', b'"%b"' % queue.url.encode())


async def leave_in_parts(redis_url: str, queue: StubQueue, entry: bytes, parts: Mapping[bytes, bytes]) -> None:
    """The entry of the task `a`, and the fields beside it."""
    await leave(redis_url, queue, {"a": at(queue, entry)})
    async with Redis.from_url(redis_url) as redis:
        await redis.hset(f"{BASE}journal:dead", mapping=parts)  # type: ignore[arg-type]


def parts_of(kind: bytes, body: bytes) -> dict[bytes, bytes]:
    pieces = [body[i : i + PART_BYTES] for i in range(0, len(body), PART_BYTES)]
    assert len(pieces) == 5
    return {b"\xffpart %b%d:a" % (kind, i): piece for i, piece in enumerate(pieces)}


async def test_each_kind_of_entry_is_run_or_reported_as_the_previous_version_would_have(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    entries = {"pulled": PULLED, "executing": EXECUTING, "completed": COMPLETED, "published": PUBLISHED}
    entries |= {"failed": FAILED, "too large": TOO_LARGE}
    await leave(redis_url, queue, {eval_id: at(queue, entry) for eval_id, entry in entries.items()})
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(len(entries))
        assert router.snapshot().counters.recovered == len(entries)
        await until(lambda: len(events) == len(entries) - 1)
    assert sorted(executor.executed) == ["executing", "pulled"]
    assert queue.completed == {
        "pulled": result("pulled"),
        "executing": result("executing"),
        "completed": {"eval_id": "completed", "status": "completed", "output": "1.10"},
        "published": {"eval_id": "published", "status": "completed", "output": "1"},
    }
    too_large = "the router died, and a task as large as this one is not kept"
    assert queue.failed == {"failed": "Traceback", "too large": too_large}
    assert {payload["eval_id"] for _, payload in events} == entries.keys() - {"published"}
    assert set(queue.reports.values()) == {1}
    assert await journals(redis_url) == {}


async def test_with_recovery_fail_only_what_may_have_run_fails(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    entries = {"pulled": at(queue, PULLED), "executing": at(queue, EXECUTING)}
    await leave(redis_url, queue, entries)
    async with running(queue, [executor], redis_url, routing={"recovery": "Fail"}):
        await queue.reported(2)
    assert queue.failed == {"executing": "the router died while executor executor-9 ran the task"}
    assert queue.completed.keys() == {"pulled"}


async def test_the_outcome_of_an_asynchronous_executor_is_waited_for(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    entry = at(queue, ASYNCHRONOUS).replace(b"UNTIL", b"%f" % (time.time() + 60))
    await leave(redis_url, queue, {"asynchronous": entry})
    async with running(queue, [executor], redis_url) as router, Redis.from_url(redis_url) as redis:
        await until(lambda: router.snapshot().in_flight == 1)

        async def heard() -> int:
            return await redis.publish(
                "evaluation:completed", '{"eval_id":"asynchronous","result":{"status":"completed","output":"survived"}}'
            )

        await until(heard)
        await queue.reported(1)
    assert queue.completed["asynchronous"]["output"] == "survived"
    assert executor.executed == []


@pytest.mark.parametrize("missing", [False, True], ids=["whole", "without a part"])
async def test_a_task_in_parts_is_joined_and_run(
    queue: StubQueue, executor: StubExecutor, redis_url: str, missing: bool
) -> None:
    code = b"x = '\xc3\xa4\\\\n'\\n" * 90_000
    parts = parts_of(b"task", b'{"eval_id":"a","code":"%b","timeout":5}' % code)
    if missing:
        del parts[b"\xffpart task3:a"]
    await leave_in_parts(redis_url, queue, TASK_IN_PARTS, parts)
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    if missing:
        assert "not kept" in queue.failed["a"]
        assert executor.executed == []
    else:
        assert executor.bodies == [{"eval_id": "a", "code": "x = 'ä\\n'\n" * 90_000, "timeout": 5}]
        assert queue.completed.keys() == {"a"}
    assert await journals(redis_url) == {}


@pytest.mark.parametrize("missing", [False, True], ids=["whole", "without a part"])
async def test_a_result_in_parts_is_joined_and_reported_and_its_task_not_run_again(
    queue: StubQueue, executor: StubExecutor, redis_url: str, missing: bool
) -> None:
    parts = parts_of(b"result", b'{"status":"completed","output":"%b"}' % (b"kept\\n" * 200_000))
    if missing:
        del parts[b"\xffpart result0:a"]
    await leave_in_parts(redis_url, queue, RESULT_IN_PARTS, parts)
    async with running(queue, [executor], redis_url), Redis.from_url(redis_url) as redis:
        await queue.reported(1)
        aside = await redis.hkeys(f"{BASE}quarantine")
    if missing:
        assert "a part of its result is missing" in queue.failed["a"]
        assert aside == [b"a"]
    else:
        assert queue.completed == {"a": {"status": "completed", "output": "kept\n" * 200_000}}
    assert executor.executed == []
    assert await journals(redis_url) == {}


async def test_a_router_of_the_previous_version_that_still_lives_keeps_its_journal(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    """Both versions keep the same keys, so a rollout has one of each for a time."""
    await leave(redis_url, queue, {"pulled": at(queue, PULLED)})
    async with Redis.from_url(redis_url) as redis:
        await redis.set(f"{BASE}lease:dead", "41", px=2500)
        async with running(queue, [executor], redis_url) as router:
            await until(lambda: router.snapshot().rivals == 1)
            await asyncio.sleep(1)
            assert executor.executed == []
            await queue.reported(1)
    assert queue.reports == {"pulled": 1}
