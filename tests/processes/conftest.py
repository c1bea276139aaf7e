"""Fixtures of the tests that start processes: a real redis-server for a whole run, emptied for each test."""

from tests.support.redis_fixtures import own_redis, redis_url, shared_redis

__all__ = ["own_redis", "redis_url", "shared_redis"]
