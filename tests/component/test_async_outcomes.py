"""The subscription to outcomes that asynchronous executors publish, on a real Redis: it ends whenever it is told to.

redis-py swallows a cancellation at some moments. A router whose subscription did not end would never stop.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from queueworker.routing.executors.async_outcomes import AsyncOutcomes

if TYPE_CHECKING:
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
