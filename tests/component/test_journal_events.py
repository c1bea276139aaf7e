"""The events' buffer of a journal, on a real Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from queueworker.routing.http.large import Pieces
from redis.asyncio import Redis

from queueworker.routing.counters import Counters
from queueworker.routing.journal import bulk
from queueworker.routing.journal import journal as journal_module
from queueworker.routing.journal.journal import MAX_BATCHED_EVENT_BYTES, Journal
from tests.support.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from devcluster.redis_server import RedisServer

SMALL, LARGE = b'"small"', b"0" * 1000


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_BUFFERED_BYTES", len(LARGE) - 1)


@asynccontextmanager
async def journal(
    redis_url: str, counters: Counters, on_room: Callable[[], None] = lambda: None
) -> AsyncIterator[Journal]:
    made = Journal(
        redis_url,
        "default/legacy",
        "worker-1:1",
        counters,
        clock=time.monotonic,
        on_recovered=lambda _journal, _found: None,
        on_fenced=lambda _journal, _unseen: None,
        on_link=lambda: None,
        on_room=on_room,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def subscriber(redis_url: str) -> AsyncIterator[list[bytes]]:
    """What is published of completed tasks, as it comes."""
    seen: list[bytes] = []
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe("evaluation:completed")
        await pubsub.get_message(timeout=5)

        async def listen() -> None:
            async for message in pubsub.listen():
                seen.append(message["data"])

        listening = asyncio.create_task(listen())
        yield seen
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def held(redis_url: str) -> set[bytes | str]:
    """Ids in the journal."""
    async with Redis.from_url(redis_url) as redis:
        return {*await redis.hkeys("queueworker:{default/legacy}:journal:worker-1:1")}


def finish(events: Journal, eval_id: str, payload: bytes | Pieces) -> None:
    events.put(eval_id, b"{}")
    events.finish(eval_id, ("evaluation:completed", payload))


@pytest.mark.usefixtures("small_buffer")
async def test_an_event_larger_than_the_buffer_drops_no_other_while_redis_is_there(redis_url: str) -> None:
    counters = Counters()
    async with journal(redis_url, counters) as events:
        for payload in (SMALL, LARGE, SMALL):
            events.publish("evaluation:completed", payload)
        await until(lambda: counters.events_published + counters.events_dropped >= 3, 60)
    assert (counters.events_published, counters.events_dropped, counters.journal_errors) == (3, 0, 0)


@pytest.mark.usefixtures("small_buffer")
async def test_the_oldest_events_are_dropped_above_the_bound_while_redis_is_away(own_redis: RedisServer) -> None:
    counters = Counters()
    async with journal(own_redis.url, counters) as events:
        own_redis.kill()
        await until(lambda: not events.events_link.ok)
        for payload in (SMALL, LARGE, SMALL, SMALL):
            events.publish("evaluation:completed", payload)
        assert (counters.events_dropped, events.buffered_events) == (2, 2)


async def test_large_events_go_by_themselves_and_their_entries_after_them(redis_url: str) -> None:
    counters = Counters()
    large = [b"%d" % i * (MAX_BATCHED_EVENT_BYTES + i) for i in range(1, 10)]
    async with subscriber(redis_url) as seen, journal(redis_url, counters) as events:
        batches, events._batch_script = events._batch_script, _never  # type: ignore[assignment]
        events._wake.set()
        for i, payload in enumerate(large):
            finish(events, f"t{i}", Pieces((payload[:7], payload[7:])) if i % 2 else payload)
        await until(lambda: seen == large)
        events._batch_script = batches
        finish(events, "small", SMALL)
        await until(lambda: seen == [*large, SMALL])
        await events.durable()
        assert await held(redis_url) == set()
    assert (counters.events_published, counters.events_dropped) == (10, 0)


async def _never(*_: object) -> bytes:
    raise ConnectionError("no batch goes now")


async def test_an_entry_stays_until_its_large_event_is_published(own_redis: RedisServer) -> None:
    counters = Counters()
    payload = b"0" * (MAX_BATCHED_EVENT_BYTES + 1)
    async with Redis.from_url(own_redis.url) as redis, journal(own_redis.url, counters) as events:
        events.put("a", b"{}")
        await events.durable("a")
        await redis.acl_setuser("default", enabled=True, commands=["-publish"])
        events.finish("a", ("evaluation:completed", payload))
        await asyncio.sleep(0.5)
        assert await held(own_redis.url) == {b"a"}
        await redis.acl_setuser("default", enabled=True, commands=["+publish"])
        async with subscriber(own_redis.url) as seen:
            await until(lambda: seen == [payload])
        await events.durable()
        assert await held(own_redis.url) == set()


async def test_large_events_whose_connection_is_cut_are_published_again(own_redis: RedisServer) -> None:
    counters = Counters()
    large = [b"%03d" % i + b"x" * MAX_BATCHED_EVENT_BYTES for i in range(200)]
    async with subscriber(own_redis.url) as seen, journal(own_redis.url, counters) as events:
        for i, payload in enumerate(large):
            finish(events, f"t{i}", payload)
        async with Redis.from_url(own_redis.url) as redis:
            await until(lambda: 20 < len(seen) < 180)
            await redis.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: len({*seen}) == 200)
        assert [*dict.fromkeys(seen)] == large
        await until(lambda: events.buffered_events == 0)
    assert counters.events_dropped == 0


async def test_there_is_no_room_while_large_events_come_faster_than_redis_takes_them(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_BUFFERED_BYTES", 2 * MAX_BATCHED_EVENT_BYTES)
    monkeypatch.setattr(bulk, "MAX_WAITING_BYTES", 2 * MAX_BATCHED_EVENT_BYTES)
    counters = Counters()
    room = 0

    def on_room() -> None:
        nonlocal room
        room += 1

    async with journal(own_redis.url, counters, on_room) as events, Redis.from_url(own_redis.url) as redis:
        assert events.has_room
        await redis.acl_setuser("default", enabled=True, commands=["-publish"])
        for i in range(3):
            finish(events, f"t{i}", b"0" * (MAX_BATCHED_EVENT_BYTES + 1))
        await asyncio.sleep(0.1)
        assert not events.has_room
        assert room == 0
        await redis.acl_setuser("default", enabled=True, commands=["+publish"])
        await until(lambda: room == 1)
        assert events.has_room
        assert (counters.events_published, counters.events_dropped) == (3, 0)
        own_redis.kill()
        await until(lambda: not events.events_link.ok)
        for i in range(3):
            finish(events, f"t{i}", b"0" * (MAX_BATCHED_EVENT_BYTES + 1))
        assert events.has_room, "what waits for a Redis that is away is bounded otherwise, and holds nothing up"
        assert counters.events_dropped == 2
