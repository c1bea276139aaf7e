"""What a journal publishes, on a real Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from devcluster.ports import free_ports
from queueworker.routing.journal.event_buffer import EVENT_BYTES
from queueworker.routing.limits import MIB, Limits
from tests.support.journals import completed, held, journal, subscriber
from tests.support.stubs import until

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer
    from queueworker.routing.journal.journal import Journal


def finish(journal: Journal, eval_id: str, payload: bytes) -> None:
    journal.put(eval_id, b"{}")
    journal.finish(eval_id, completed(payload))


async def test_events_are_published_in_order_however_large_they_are_and_their_entries_go(redis_url: str) -> None:
    sizes = (1, 3 * MIB, 10, 600_000, 64 * MIB, 2)
    payloads = [b"%d" % i * size for i, size in enumerate(sizes)]
    async with subscriber(redis_url) as seen, journal(redis_url) as (events, counters):
        for i, payload in enumerate(payloads):
            events.put(f"t{i}", b"{}")
            await events.durable(f"t{i}")
            events.finish(f"t{i}", completed(payload))
        # Redis closes the connection of a subscriber that is 32 MiB behind: it hears what comes after.
        await until(lambda: counters.events_published == len(payloads), 30)
        assert seen[:4] == payloads[:4]
        await events.durable()
        assert await held(redis_url) == {}
    assert (counters.events_dropped, counters.journal_errors) == (0, 0)


async def test_an_event_larger_than_the_buffer_drops_no_other_while_redis_is_there(redis_url: str) -> None:
    limits = Limits(max_buffered_event_bytes=999)
    async with subscriber(redis_url) as seen, journal(redis_url, limits) as (events, counters):
        payloads = [b"small", b"0" * 1000, b"small too"]
        for payload in payloads:
            events.publish(completed(payload))
        await until(lambda: seen == payloads)
    assert (counters.events_published, counters.events_dropped, counters.journal_errors) == (3, 0, 0)


async def test_the_oldest_events_are_dropped_above_the_bound_while_redis_is_away(own_redis: RedisServer) -> None:
    limits = Limits(max_buffered_event_bytes=2 * (EVENT_BYTES + 10))
    async with journal(own_redis.url, limits) as (events, counters):
        own_redis.kill()
        await until(lambda: not events.link.events.ok)
        for i in range(4):
            events.publish(completed(b"%010d" % i))
        assert (counters.events_dropped, events.buffered_events) == (2, 2)
        await asyncio.to_thread(own_redis.start)
        async with subscriber(own_redis.url) as seen:
            await until(lambda: counters.events_published == 2, 15)
        assert seen in ([], [b"%010d" % 2, b"%010d" % 3])


async def test_events_whose_connection_is_cut_are_published_again_in_their_order(own_redis: RedisServer) -> None:
    payloads = [b"%03d" % i + b"x" * 64_000 for i in range(200)]
    async with subscriber(own_redis.url) as seen, journal(own_redis.url) as (events, counters):
        for i, payload in enumerate(payloads):
            finish(events, f"t{i}", payload)
        async with Redis.from_url(own_redis.url) as redis:
            await until(lambda: 20 < len(seen) < 180)
            await redis.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: len({*seen}) == 200)
        assert [*dict.fromkeys(seen)] == payloads
        await until(lambda: events.buffered_events == 0)
    assert counters.events_dropped == 0


async def test_an_entry_stays_until_its_event_is_published(own_redis: RedisServer) -> None:
    async with Redis.from_url(own_redis.url) as redis, journal(own_redis.url) as (events, counters):
        events.put("a", b"{}")
        await events.durable("a")
        await redis.acl_setuser("default", enabled=True, commands=["-publish"])
        events.finish("a", completed(b"{}"))
        await until(lambda: counters.journal_errors)
        assert await held(own_redis.url) == {b"a": b"{}"}
        await redis.acl_setuser("default", enabled=True, commands=["+publish"])
        await until(lambda: counters.events_published == 1)
        await events.durable()
        assert await held(own_redis.url) == {}


async def test_without_memory_in_redis_events_and_removals_go_on_and_entries_are_written_when_there_is_some(
    own_redis: RedisServer,
) -> None:
    async with (
        Redis.from_url(own_redis.url) as redis,
        subscriber(own_redis.url) as seen,
        journal(own_redis.url) as (events, _),
    ):
        events.put("done", b"{}")
        await events.durable("done")
        await redis.config_set("maxmemory", "1")
        events.put("new", b"{}")
        events.finish("done", completed(b"event"))
        await until(lambda: seen == [b"event"])
        await until(lambda: not events.writable)
        assert "OOM" in events.link.journal.message
        assert events.link.events.ok
        assert b"done" not in await held(own_redis.url)
        events.put("newer", b"{}")
        await redis.config_set("maxmemory", "0")
        await until(lambda: events.writable)
        await events.durable()
        assert await held(own_redis.url) == {b"new": b"{}", b"newer": b"{}"}
    assert seen == [b"event"]


async def test_a_replica_that_takes_no_writes_gets_no_event_either(own_redis: RedisServer) -> None:
    """Its subscribers are not those of the platform."""
    (nobody,) = free_ports(1)
    async with (
        Redis.from_url(own_redis.url) as redis,
        subscriber(own_redis.url) as seen,
        journal(own_redis.url) as (events, counters),
    ):
        await redis.replicaof("127.0.0.1", str(nobody))
        events.publish(completed(b"event"))
        await until(lambda: not events.link.events.ok)
        assert (seen, events.buffered_events) == ([], 1)
        await redis.replicaof("NO", "ONE")
        await until(lambda: seen == [b"event"])
        assert counters.events_published == 1


async def test_closing_waits_for_the_batch_that_is_on_its_way(own_redis: RedisServer) -> None:
    async with journal(own_redis.url) as (events, counters):
        events.publish(completed(b"{}"))
        await until(lambda: counters.events_published == 1)  # a batch is taken once there is a connection
        own_redis.pause()
        events.publish(completed(b"{}"))
        await until(lambda: events.buffered_events == 0)
        asyncio.get_running_loop().call_later(0.3, own_redis.resume)
    assert counters.events_published == 2
