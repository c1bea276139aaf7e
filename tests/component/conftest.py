"""Fixtures of the component tests: a real redis-server for a whole run, emptied for each test; a queue, an executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from devcluster.redis_server import RedisServer
from tests.support.redis_state import published
from tests.support.stubs import StubExecutor, StubQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """A Redis that holds nothing yet."""
    with Redis(port=shared_redis.port) as client:
        client.flushall()
    return shared_redis.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, to stop, freeze and kill."""
    with RedisServer() as server:
        yield server


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
