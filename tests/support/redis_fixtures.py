"""Fixtures of a real redis-server, for the conftest of each level that needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from devcluster.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator


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
