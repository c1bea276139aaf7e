"""Waits, and the cancellations that come in between."""

from __future__ import annotations

import asyncio

import pytest

from queueworker.routing.aio import happens, uncancel


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


async def test_a_task_that_goes_on_after_a_cancellation_waits_as_before() -> None:
    """On Python 3.11.2, `asyncio.timeout` raises CancelledError there, unless the task says that it goes on."""

    async def goes_on() -> bool:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            uncancel()
        return await happens(asyncio.Event(), 0.01)

    going = asyncio.create_task(goes_on())
    await asyncio.sleep(0)
    going.cancel()
    assert await going is False
    assert not going.cancelling()
