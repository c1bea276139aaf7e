"""What a journal takes over and what it records of failed tasks, on a real Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from redis.asyncio import Redis

from queueworker.routing.journal import entries
from queueworker.routing.journal.failed_tasks import FailedTask, decode
from queueworker.routing.limits import Limits
from tests.support.journals import BASE, completed, held, journal
from tests.support.stubs import until

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer

WHOLE = b'{"state":"executing","queue":"http://q","attempt":2,"executor":"executor-1","task":{"eval_id":"whole","code":"1"}}'
IN_PARTS = b'{"state":"executing","queue":"http://q","attempt":1,"executor":"executor-1","task":null,"parts":2}'
# As the version before left them.
LEFT = {
    b"whole": WHOLE,
    b"parts": IN_PARTS,
    b"\xffpart task0:parts": b'{"eval_id":"parts","code":"' + b"x" * 262_000,
    b"\xffpart task1:parts": b'y"}',
    b"\xffpart task0:orphan": b"orphan",
}


async def leave(redis_url: str, left: dict[bytes, bytes]) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.hset(f"{BASE}journal:dead:1", mapping=left)  # type: ignore[arg-type]
        await redis.sadd(f"{BASE}instances", "dead:1")


async def test_what_the_version_before_left_is_taken_over_whole_and_in_parts(redis_url: str) -> None:
    await leave(redis_url, LEFT)
    recovered: dict[str, bytes] = {}
    async with journal(redis_url, on_recovered=recovered.update):
        assert recovered["whole"] == WHOLE
        assert entries.decode(recovered["parts"]).task == b'{"eval_id":"parts","code":"' + b"x" * 262_000 + b'y"}'
        assert await held(redis_url) == {eval_id.encode(): entry for eval_id, entry in recovered.items()}
    assert recovered.keys() == {"whole", "parts"}


async def test_many_megabytes_are_taken_over_in_portions(redis_url: str) -> None:
    await leave(redis_url, {b"t%d" % i: b"x" * 1_000_000 for i in range(40)})
    recovered: dict[str, bytes] = {}
    async with journal(redis_url, on_recovered=recovered.update) as (one, counters):
        assert len(recovered) == 9, "8 MiB, and what begins before"
        await until(lambda: len(recovered) == 40)
        for eval_id in recovered:
            one.finish(eval_id)
        await one.durable()
        assert await held(redis_url) == {}
    assert counters.journal_errors == 0


async def test_one_that_was_declared_dead_goes_on_with_what_nobody_has(redis_url: str) -> None:
    lost: list[set[str]] = []
    async with Redis.from_url(redis_url) as redis, journal(redis_url, on_fenced=lost.append) as (frozen, counters):
        frozen.put("seen", b"pulled")
        await frozen.durable()
        await redis.delete(f"{BASE}lease:{frozen.lease.instance.id}")
        async with journal(redis_url, worker="successor"):
            frozen.put("seen", b"executed")
            frozen.put("new", b"pulled")
            frozen.finish("other", completed(b"{}"), made("other", 1))
            await until(lambda: lost == [{"seen"}])
            await frozen.durable()
            assert await redis.hgetall(f"{BASE}journal:{frozen.lease.instance.id}") == {b"new": b"pulled"}
            assert counters.events_published == 1
            assert (await records(redis_url)).keys() == {"other"}
        assert frozen.writable


# --- failed tasks


def made(eval_id: str, when: float, task: bytes = b'{"code":"1"}') -> FailedTask:
    return FailedTask(eval_id, "oops", 1, "executor-1", when, "http://q", False, len(task), task)


async def records(redis_url: str) -> dict[str, FailedTask]:
    """The newest first."""
    async with Redis.from_url(redis_url) as redis:
        ids = cast("list[bytes]", await redis.zrevrange(f"{BASE}failed:index", 0, -1))
        found = cast("dict[bytes, bytes]", await redis.hgetall(f"{BASE}failed"))
    return {eval_id.decode(): decode(eval_id.decode(), found[eval_id]) for eval_id in ids}


async def test_the_record_keeps_its_bounds_and_the_oldest_go_first(redis_url: str) -> None:
    limits = Limits(max_failed_tasks=100, max_failed_tasks_bytes=1_000_000)
    async with journal(redis_url, limits) as (one, _):
        for i in range(120):
            one.finish(f"t{i}", failed=made(f"t{i}", i))
            if i % 10 == 0:
                await one.durable()
        await one.durable()
        assert list(await records(redis_url)) == [f"t{i}" for i in range(119, 19, -1)]
        for i in range(20):
            one.finish(f"large{i}", failed=made(f"large{i}", 1000 + i, b'"' + b"x" * 100_000 + b'"'))
            await one.durable()
    found = await records(redis_url)
    assert list(found)[:3] == ["large19", "large18", "large17"]
    async with Redis.from_url(redis_url) as redis:
        kept = sum(map(len, await redis.hvals(f"{BASE}failed")))
        assert int(await redis.get(f"{BASE}failed:bytes") or 0) == kept
    assert 900_000 - 1000 < kept <= 1_000_000


async def test_a_task_that_ends_anew_leaves_the_record(redis_url: str) -> None:
    async with journal(redis_url) as (one, _):
        for failed in (made("a", 1), None):
            one.put("a", b"executed")
            await one.durable()
            one.finish("a", completed(b"{}"), failed)
            await one.durable()
            assert (await records(redis_url)).keys() == ({"a"} if failed else set())


async def test_a_record_alone_that_redis_has_no_memory_for_waits(own_redis: RedisServer) -> None:
    async with Redis.from_url(own_redis.url) as redis, journal(own_redis.url) as (one, _):
        await redis.config_set("maxmemory", "1")
        one.finish("a", completed(b"{}"), made("a", 1))
        await until(lambda: not one.writable)
        assert "OOM" in one.link.journal.message
        assert (await records(own_redis.url), one.buffered_events) == ({}, 0)
        await redis.config_set("maxmemory", "0")
        await until(lambda: one.writable)
        await one.durable()
        assert (await records(own_redis.url)).keys() == {"a"}


async def test_a_record_that_somebody_broke_by_hand_is_begun_anew_and_holds_nothing_up(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, journal(redis_url) as (one, counters):
        await redis.set(f"{BASE}failed", "noise")
        for eval_id in ("a", "b"):
            one.finish(eval_id, completed(b"{}"), made(eval_id, 1))
            await one.durable()
        assert (await records(redis_url)).keys() == {"b"}
        await asyncio.sleep(0)
    assert (counters.events_published, counters.journal_errors) == (2, 0)
