"""Fixtures of the component tests: a real redis-server for a whole run, emptied for each test; a queue, an executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.redis_fixtures import own_redis, redis_url, shared_redis
from tests.support.redis_state import published
from tests.support.stubs import StubExecutor, StubQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


__all__ = ["events", "executor", "own_redis", "queue", "redis_url", "shared_redis"]


@pytest.fixture
async def queue() -> AsyncIterator[StubQueue]:
    async with StubQueue() as queue:
        yield queue


@pytest.fixture
async def executor() -> AsyncIterator[StubExecutor]:
    async with StubExecutor() as executor:
        yield executor


@pytest.fixture
async def events(redis_url: str) -> AsyncIterator[list[tuple[str, Any]]]:
    """What was published, in order: channel and payload."""
    async with published(redis_url) as seen:
        yield seen
