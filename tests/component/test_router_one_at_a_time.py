"""Executors that answer one request at a time, over real HTTP: while they work, their health checks time out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue

if TYPE_CHECKING:
    from aiohttp import web


class OneAtATime(StubExecutor):
    """As a server with one thread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._thread = asyncio.Lock()

    async def execute(self, request: web.Request) -> web.StreamResponse:
        async with self._thread:
            return await super().execute(request)

    async def health(self, request: web.Request) -> web.StreamResponse:
        async with self._thread:
            return await super().health(request)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_an_executor_that_works_longer_than_a_check_may_take_is_healthy_and_fails_nothing(
    queue: StubQueue, redis_url: str, concurrency: int
) -> None:
    executors = {
        "concurrency": concurrency,
        "unavailableGraceSeconds": 1,
        "healthCheck": {"timeoutSeconds": 1, "periodSeconds": 1},
    }
    async with OneAtATime(delay=2.5) as executor:
        queue.submit("a", "b", "c")
        async with running(queue, [executor], redis_url, executors=executors) as router:
            reported = asyncio.create_task(queue.reported(3, timeout=60))
            seen = set()
            while not reported.done():
                await asyncio.sleep(0.05)
                snapshot = router.snapshot()
                seen |= {snapshot.down} if snapshot.executors and snapshot.executors[0].last_check else set()
            await reported
            assert router.snapshot().healthy == 1
    assert seen == {False}
    assert (sorted(queue.completed), queue.failed) == (["a", "b", "c"], {})
    assert executor.most_in_flight == 1
