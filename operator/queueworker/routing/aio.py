"""Background tasks, and ending tasks that may miss their cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

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


class BackgroundTasks:
    """Work that nobody waits for, until the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        await cancelled(*self._tasks)
