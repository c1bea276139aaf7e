"""What people read when Redis cannot be used."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.routing.journal.redis_link import reason_of

RIGHTS = "(docs/security.md names the rights that its user needs)"
TRY_AGAIN = "Multiple keys request during rehashing of slot"
IN_A_SCRIPT = f"script: {'a1' * 20}, on @user_script:57."


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
        (
            RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed"),
            "it closed the connection",
        ),
        (
            RedisConnectionError("Error 104 while writing to socket. Connection reset by peer."),
            "connection reset by peer",
        ),
        (RedisTimeoutError("Timeout connecting to server"), "no answer in time"),
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection reset by peer"),
        (ReadOnlyError("You can't write against a read only replica."), "You can't write against a read only replica."),
        (ReadOnlyError(f"You can't write. {IN_A_SCRIPT}"), "You can't write"),
        (ResponseError("unknown command 'EVALSHA', with args beginning with: 'af' '0'"), "unknown command 'EVALSHA'"),
        (
            ResponseError(f"ACL failure in script: No permissions to access a channel {IN_A_SCRIPT}"),
            f"ACL failure in script: No permissions to access a channel {RIGHTS}",
        ),
        (
            NoPermissionError("User u has no permissions to run the 'evalsha' command"),
            f"User u has no permissions to run the 'evalsha' command {RIGHTS}",
        ),
        *(  # Redis 6.0
            (ResponseError(f"{text} {IN_A_SCRIPT}"), f"{text} {RIGHTS}")
            for text in (
                "The user executing the script can't run this command or subcommand",
                "The user executing the script can't access at least one of the keys",
            )
        ),
        (AuthenticationError("invalid username-password pair"), "invalid username-password pair"),
        (
            AuthenticationError("HELLO must be called with the client already authenticated, otherwise the HELLO …"),
            "it asks for a password, and the URL has none",
        ),
        *(  # as redis-py has it
            (error, f"{text}: the journal needs a single Redis, not a node of a cluster")
            for error, text in (
                (MovedError("7638 10.0.0.1:7001"), "MOVED 7638 10.0.0.1:7001"),
                (TryAgainError(TRY_AGAIN), TRY_AGAIN),
            )
        ),
        *(
            (ResponseError(text), f"{text}: the journal needs a single Redis, not a node of a cluster")
            for text in (
                "MOVED 7638 10.0.0.1:7001",
                "CROSSSLOT Keys in request don't hash to the same slot",
                "CLUSTERDOWN Hash slot not served",
                "Script attempted to access a slot not served",
            )
        ),
    ],
)
def test_a_reason_quotes_redis_and_not_the_library(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
