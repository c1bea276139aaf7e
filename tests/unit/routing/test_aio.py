"""Waits, and the cancellations that come in between."""

from __future__ import annotations

import asyncio

import pytest

from queueworker.routing.aio import happens


async def test_an_event_is_waited_for_and_missed_after_its_time() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await happens(event, 30)
    event.clear()
    assert not await happens(event, 0.01)
    assert not await happens(event, 0)


async def test_an_event_that_is_there_is_not_waited_for() -> None:
    event = asyncio.Event()
    event.set()
    assert await happens(event, 0)


async def test_a_cancellation_in_the_moment_of_the_event_is_not_swallowed() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, 30))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
