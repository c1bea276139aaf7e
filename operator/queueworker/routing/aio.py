"""Waiting and cancelling, without what asyncio and libraries do to cancellations."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

AGAIN_SECONDS = 0.1


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them, again and again, until they have ended; whatever they raise is dropped.

    Once is not enough: redis-py swallows a cancellation that comes while it connects, and goes on as if nothing had
    been asked (seen with 8.1.0).
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait so long for the event, and return whether it came.

    Not by `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes in the moment of the event.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def uncancel() -> None:
    """Called by a task that goes on after a cancellation, or its next timeout is one more (Python 3.11.2)."""
    task = asyncio.current_task()
    assert task is not None
    while task.cancelling():
        task.uncancel()


def is_cancelled() -> bool:
    """Whether the current task was cancelled, and did not just meet a CancelledError that a library lets out."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0
