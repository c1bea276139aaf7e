"""Fixtures of the tests with Prometheus: a real redis-server for the run, emptied for each test."""

from tests.support.redis_fixtures import own_redis, redis_url, shared_redis

__all__ = ["own_redis", "redis_url", "shared_redis"]
