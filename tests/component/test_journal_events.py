"""The events' buffer of a journal, on a real Redis."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from queueworker.routing.journal import MAX_BUFFERED_BYTES, Journal
from queueworker.routing.snapshot import Counters
from tests.component.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from demo.control_plane.redis_server import RedisServer

SMALL, LARGE = b'"small"', b"0" * (MAX_BUFFERED_BYTES + 1)


@asynccontextmanager
async def journal(redis_url: str, counters: Counters) -> AsyncIterator[Journal]:
    made = Journal(
        redis_url,
        "default/legacy",
        "worker-1:1",
        counters,
        clock=time.monotonic,
        on_recovered=lambda _journal, _found: None,
        on_fenced=lambda _journal, _unseen: None,
        on_link=lambda: None,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def test_an_event_larger_than_the_buffer_drops_no_other_while_redis_is_there(redis_url: str) -> None:
    counters = Counters()
    async with journal(redis_url, counters) as events:
        for payload in (SMALL, LARGE, SMALL):
            events.publish("evaluation:completed", payload)
        await until(lambda: counters.events_published + counters.events_dropped >= 3, 60)
    assert (counters.events_published, counters.events_dropped, counters.journal_errors) == (3, 0, 0)


async def test_the_oldest_events_are_dropped_above_the_bound_while_redis_is_away(own_redis: RedisServer) -> None:
    counters = Counters()
    async with journal(own_redis.url, counters) as events:
        own_redis.kill()
        await until(lambda: not events.events_link.ok)
        for payload in (SMALL, LARGE, SMALL, SMALL):
            events.publish("evaluation:completed", payload)
        assert (counters.events_dropped, events.buffered_events) == (2, 2)
