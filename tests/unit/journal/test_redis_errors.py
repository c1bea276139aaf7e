"""What people read when Redis cannot be used."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.routing.journal.redis_errors import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RedisConnectionError("Error 111 connecting to redis:6379. Connect call failed ('10.0.0.1', 6379)."),
            "connection refused",
        ),
        (
            RedisConnectionError("Error -2 connecting to redis:6379. Name or service not known."),
            "its name cannot be looked up",
        ),
        (RedisConnectionError("Connection closed by server."), "it closed the connection"),
        (RedisTimeoutError("Timeout connecting to server"), "no answer in time"),
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection reset by peer"),
        (ReadOnlyError("You can't write against a read only replica."), "You can't write against a read only replica."),
    ],
)
def test_a_reason_quotes_redis_and_not_the_library(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
