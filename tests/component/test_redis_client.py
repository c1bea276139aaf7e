"""Scripts with a connection of their own, on a real Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.routing.journal.redis_client import Client, ForeignAnswer, connect
from queueworker.routing.journal.scripts import is_batch_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devcluster.redis_server import RedisServer
    from queueworker.routing.journal.redis_client import ExclusiveScript

ECHO = "return {KEYS[1], ARGV[1], ARGV[2]}"


async def call(script: ExclusiveScript, *arguments: object, seconds: float = 5) -> object:
    """Connect if needed, then run it with the key `key`."""
    await script.connect(seconds)
    return await script.run(["key"], arguments, seconds)


@pytest.fixture
async def client(own_redis: RedisServer) -> AsyncIterator[Client]:
    made = connect(own_redis.url, retry=Retry(NoBackoff(), 0), socket_timeout=5)
    yield made
    await made.aclose()


async def test_all_calls_go_over_one_connection(client: Client) -> None:
    script = client.exclusive_script(ECHO)
    for i in range(10):
        assert await call(script, i, b"\xff") == [b"key", b"%d" % i, b"\xff"]
    assert int((await client.info("clients"))["connected_clients"]) == 2, "the script's, and the one that asks this"


async def test_a_connection_that_redis_has_closed_is_found_before_it_is_used(client: Client) -> None:
    script = client.exclusive_script(ECHO)
    await call(script, 1, 2)
    await client.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.05)
    assert await call(script, 3, 4) == [b"key", b"3", b"4"]


async def test_a_redis_that_has_forgotten_the_script_gets_it_again(client: Client) -> None:
    script = client.exclusive_script(ECHO)
    await call(script, 1, 2)
    await client.script_flush("SYNC")
    assert await call(script, 3, 4) == [b"key", b"3", b"4"]


async def test_an_answer_that_came_too_late_is_not_taken_for_the_next_calls(client: Client) -> None:
    script = client.exclusive_script(ECHO)
    await call(script, 1, 2)
    await client.client_pause(1000)
    with pytest.raises(RedisTimeoutError, match=r"no answer within 0\.3 s"):
        await call(script, "late", 2, seconds=0.3)
    await asyncio.sleep(1)
    assert await call(script, 3, 4) == [b"key", b"3", b"4"]


async def test_a_call_that_was_cancelled_leaves_no_answer_to_the_next(client: Client) -> None:
    script = client.exclusive_script(ECHO)
    await call(script, 1, 2)
    await client.client_pause(300)
    given_up = asyncio.create_task(call(script, "given up", 2))
    await asyncio.sleep(0.1)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert await call(script, 3, 4) == [b"key", b"3", b"4"]


async def test_an_error_of_the_script_keeps_the_connection(client: Client) -> None:
    script = client.exclusive_script("if ARGV[1] == 'bad' then return redis.error_reply('no') end return ARGV[1]")
    assert await call(script, "good") == b"good"
    with pytest.raises(ResponseError, match="no"):
        await call(script, "bad")
    assert await call(script, "good") == b"good"
    assert int((await client.info("stats"))["total_connections_received"]) <= 3


async def test_a_call_fails_while_redis_is_away_and_connects_again_afterwards(
    client: Client, own_redis: RedisServer
) -> None:
    script = client.exclusive_script(ECHO)
    await call(script, 1, 2)
    own_redis.kill()
    for _ in range(3):
        with pytest.raises(RedisConnectionError):
            await call(script, 1, 2)
    own_redis.start()
    assert await call(script, 3, 4) == [b"key", b"3", b"4"]


@pytest.mark.parametrize("answered", ["1", "nil", "{1}", "false", "'OK'", "'QUEUED'", "redis.status_reply('OK')"])
async def test_an_answer_that_is_none_of_the_scripts_is_refused(client: Client, answered: str) -> None:
    script = client.exclusive_script(f"return {answered}", is_batch_answer)
    with pytest.raises(ForeignAnswer):
        await call(script)
