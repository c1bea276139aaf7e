"""How a journal publishes events, on a real Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from redis.asyncio import Redis

from queueworker.routing.counters import Counters
from queueworker.routing.limits import Limits
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED, Event
from tests.support.redis_state import journalled, published
from tests.support.running import journalling
from tests.support.stubs import until

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer
    from queueworker.routing.journal.journal import Journal

BATCH_BYTES = 10_000
SMALL, LARGE = b'"small"', b'"%b"' % (b"x" * 2 * BATCH_BYTES)
SMALL_BATCHES = Limits(max_batch_bytes=BATCH_BYTES)
SMALL_BUFFER = Limits(max_buffered_event_bytes=len(LARGE))


def event(payload: bytes) -> Event:
    return Event(CHANNEL_COMPLETED, payload)


def finish(journal: Journal, eval_id: str, payload: bytes) -> None:
    journal.put(eval_id, b"{}")
    journal.finish(eval_id, event(payload))


def payloads(seen: list[tuple[str, Any]]) -> list[bytes]:
    return [orjson.dumps(payload) for _, payload in seen]


def numbered(count: int) -> list[bytes]:
    """Events larger than a batch may be, all different."""
    return [b'"%d %b"' % (i, b"x" * (BATCH_BYTES + i)) for i in range(count)]


async def test_an_event_larger_than_the_buffer_drops_no_other_while_redis_is_there(redis_url: str) -> None:
    counters = Counters()
    async with journalling(redis_url, counters, limits=SMALL_BUFFER) as journal:
        for payload in (SMALL, LARGE, SMALL):
            journal.publish(event(payload))
        await until(lambda: counters.events_published + counters.events_dropped >= 3)
    assert (counters.events_published, counters.events_dropped, counters.journal_errors) == (3, 0, 0)


async def test_the_oldest_events_are_dropped_above_the_bound_while_redis_is_away(own_redis: RedisServer) -> None:
    counters = Counters()
    async with journalling(own_redis.url, counters, limits=SMALL_BUFFER) as journal:
        own_redis.kill()
        await until(lambda: not journal.events_link.ok)
        for payload in (SMALL, LARGE, SMALL, SMALL):
            journal.publish(event(payload))
        assert (counters.events_dropped, journal.buffered_events) == (2, 2)


async def test_events_larger_than_a_batch_are_published_in_order_and_their_entries_removed(redis_url: str) -> None:
    counters = Counters()
    large = numbered(9)
    async with published(redis_url) as seen, journalling(redis_url, counters, limits=SMALL_BATCHES) as journal:
        for i, payload in enumerate(large):
            journal.put(f"t{i}", b"{}")
            await journal.durable(f"t{i}")
            finish(journal, f"t{i}", payload)
            finish(journal, f"small{i}", SMALL)
        await until(lambda: len(seen) == 18)
        await journal.durable()
        assert await journalled(redis_url) == {}
    assert payloads(seen) == [payload for each in large for payload in (each, SMALL)]
    assert (counters.events_published, counters.events_dropped) == (18, 0)


async def test_an_entry_stays_until_its_event_is_published(own_redis: RedisServer) -> None:
    counters = Counters()
    async with Redis.from_url(own_redis.url) as redis, journalling(own_redis.url, counters) as journal:
        journal.put("a", b"{}")
        await journal.durable("a")
        await redis.acl_setuser("default", enabled=True, commands=["-publish"])
        journal.finish("a", event(LARGE))
        await until(lambda: counters.journal_errors >= 2)
        assert (await journalled(own_redis.url)).keys() == {"a"}
        async with published(own_redis.url) as seen:
            await redis.acl_setuser("default", enabled=True, commands=["+publish"])
            await until(lambda: payloads(seen) == [LARGE])
        await journal.durable()
        assert await journalled(own_redis.url) == {}


async def test_events_whose_connection_was_cut_are_published_again_in_order(own_redis: RedisServer) -> None:
    counters = Counters()
    large = numbered(200)
    async with (
        published(own_redis.url) as seen,
        journalling(own_redis.url, counters, limits=SMALL_BATCHES) as journal,
        Redis.from_url(own_redis.url) as redis,
    ):
        for i, payload in enumerate(large):
            finish(journal, f"t{i}", payload)
        await until(lambda: len(seen) > 20)
        await redis.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: len({*payloads(seen)}) == 200, 30)
        assert [*dict.fromkeys(payloads(seen))] == large
        await until(lambda: journal.buffered_events == 0)
    assert counters.events_dropped == 0


async def test_there_is_no_room_while_events_come_faster_than_redis_takes_them(own_redis: RedisServer) -> None:
    counters, rooms = Counters(), []
    limits = Limits(max_batch_bytes=BATCH_BYTES, max_buffered_event_bytes=2 * len(LARGE))
    async with journalling(own_redis.url, counters, limits=limits, on_room=lambda: rooms.append(1)) as journal:
        assert journal.has_room
        own_redis.pause()
        for i in range(3):
            finish(journal, f"t{i}", LARGE)
        assert not journal.has_room
        own_redis.resume()
        await until(lambda: journal.has_room)
        await until(lambda: counters.events_published == 3)
        assert rooms
        assert counters.events_dropped == 0
        own_redis.kill()
        await until(lambda: not journal.events_link.ok)
        for i in range(3):
            finish(journal, f"t{i}", LARGE)
        assert journal.has_room, "while Redis is away, the oldest events are dropped, and nothing is held up"
        assert counters.events_dropped == 2


async def test_closing_waits_for_the_batch_that_is_on_its_way(own_redis: RedisServer) -> None:
    counters = Counters()
    async with journalling(own_redis.url, counters) as journal:
        own_redis.pause()
        journal.publish(event(SMALL))
        await until(lambda: journal.buffered_events == 0)
        asyncio.get_running_loop().call_later(0.3, own_redis.resume)
    assert counters.events_published == 1
