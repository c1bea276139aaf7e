"""Ending tasks that may miss their cancellation."""

from __future__ import annotations

import asyncio
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
