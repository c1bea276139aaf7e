"""The subscription to the outcome channels, on a real Redis."""

from __future__ import annotations

import asyncio

from queueworker.routing.executors.async_outcomes import AsyncOutcomes

MOMENTS = 60
STEP_SECONDS = 0.0001
PATIENCE_SECONDS = 5.0


async def test_a_subscription_ends_whenever_it_is_told_to_while_it_connects(redis_url: str) -> None:
    """redis-py swallows a cancellation at some of these moments, and went on listening: the router never drained."""
    for moment in range(MOMENTS):
        outcomes = AsyncOutcomes(redis_url, max_body_bytes=1024)
        listening = asyncio.create_task(outcomes.listen())
        await asyncio.sleep(moment * STEP_SECONDS)
        listening.cancel()
        await asyncio.wait_for(outcomes.stop_listening(), PATIENCE_SECONDS)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "async outcomes"]
