"""The subscription to outcomes that asynchronous executors publish, on a real Redis: it ends whenever it is told to.

redis-py swallows a cancellation at some moments. A router whose subscription did not end would never stop.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from queueworker.routing.executors.async_outcomes import AsyncOutcomes
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED

if TYPE_CHECKING:
    import pytest

    from devcluster.redis_server import RedisServer

MOMENTS = 60
STEP_SECONDS = 0.0001
PATIENCE_SECONDS = 15.0


async def subscribed_for(redis_url: str, seconds: float) -> None:
    """Subscribe, and end that after so many seconds, whether or not Redis has answered by then."""
    outcomes = AsyncOutcomes(redis_url, max_body_bytes=1 << 20)
    listening = asyncio.create_task(outcomes.listen())
    await asyncio.sleep(seconds)
    listening.cancel()  # a task that still waits would subscribe again
    await asyncio.wait({listening})
    await asyncio.wait_for(outcomes.close(), PATIENCE_SECONDS)
    assert not outcomes.listening


async def test_a_subscription_ends_at_any_moment_of_its_beginning(redis_url: str) -> None:
    before = asyncio.all_tasks()
    for moment in range(MOMENTS):
        await subscribed_for(redis_url, moment * STEP_SECONDS)
        assert asyncio.all_tasks() == before


async def test_a_subscription_ends_while_redis_dies_and_comes_back(own_redis: RedisServer) -> None:
    rng = Random(7)
    subscriptions = [asyncio.create_task(subscribed_for(own_redis.url, 4 * rng.random())) for _ in range(300)]
    for _ in range(3):
        await asyncio.sleep(0.5)
        own_redis.kill()
        await asyncio.sleep(0.7)
        await asyncio.to_thread(own_redis.start)
    await asyncio.gather(*subscriptions)


async def test_a_subscription_that_redis_refuses_is_named_once_and_made_when_it_is_allowed(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with Redis.from_url(own_redis.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "u", "on", ">pw", "~*", "resetchannels", "+@all")
        outcomes = AsyncOutcomes(own_redis.url.replace("//", "//u:pw@"), max_body_bytes=1 << 20)
        waiting = outcomes.subscribe("a")
        await outcomes.listen()
        await asyncio.sleep(2)
        assert [record.message.partition(":")[0] for record in caplog.records] == [
            "subscription to the outcome channels broke"
        ]
        await admin.execute_command("ACL", "SETUSER", "u", "allchannels")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await admin.publish(CHANNEL_COMPLETED, b'{"eval_id":"a","status":"completed"}'):
                await asyncio.sleep(0.05)
            assert (await waiting).completed
        outcomes.unsubscribe("a")
        await asyncio.wait_for(outcomes.close(), PATIENCE_SECONDS)
    assert [record.message for record in caplog.records][1:] == ["subscribed to the outcome channels again"]
