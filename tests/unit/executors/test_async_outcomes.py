"""Outcomes that asynchronous executors publish, as tasks get them. Redis is a fake one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from queueworker.routing.executors.async_outcomes import EVENT_ROOM_BYTES, AsyncOutcomes
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED, CHANNEL_FAILED, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_BODY_BYTES = 100_000
PATIENCE_SECONDS = 5.0


class World:
    def __init__(self) -> None:
        self.server = FakeServer()
        self.outcomes = AsyncOutcomes("redis://fake", self.connect, max_body_bytes=MAX_BODY_BYTES)
        self._redis = FakeAsyncRedis(server=self.server)

    def connect(self, url: str, **_: Any) -> FakeAsyncRedis:
        return FakeAsyncRedis(server=self.server)

    async def publish(self, channel: str, payload: bytes) -> None:
        await self._redis.publish(channel, payload)

    async def subscribers(self) -> int:
        return int(dict(await self._redis.pubsub_numsub(CHANNEL_COMPLETED))[CHANNEL_COMPLETED.encode()])

    async def outcome(self, channel: str, *payloads: bytes) -> Outcome:
        """What the task `a` gets when these are published one after the other."""
        future = self.outcomes.subscribe("a")
        await self.outcomes.listen()
        for payload in payloads:
            await self.publish(channel, payload)
        return await asyncio.wait_for(future, PATIENCE_SECONDS)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await asyncio.wait_for(world.outcomes.close(), PATIENCE_SECONDS)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "async outcomes"]


FLAT = b'{"eval_id":"a","status":%b}'
RESULT = b'{"status": "completed", "n": 123456789012345678901234567890, "f": 1.10, "k": 1, "k": 2, "t": "\xc3\xa9" }'


@pytest.mark.parametrize(
    ("channel", "payload", "outcome"),
    [
        (CHANNEL_COMPLETED, b'{"eval_id": "a", "result": ' + RESULT + b"}", Outcome(True, "", RESULT, True)),
        (CHANNEL_COMPLETED, b'{"result":' + RESULT + b',"eval_id":"a"}', Outcome(True, "", RESULT, True)),
        (
            CHANNEL_COMPLETED,
            b'{"eval_id":"a","result":{"status":"failed","error":"e"}}',
            Outcome(False, "e", b'{"status":"failed","error":"e"}', True),
        ),
        (
            CHANNEL_FAILED,
            b'{"eval_id":"a","result":{"status":"timeout","error":"30 s"}}',
            Outcome(False, "30 s", b'{"status":"timeout","error":"30 s"}', True),
        ),
        (
            CHANNEL_FAILED,
            b'{"eval_id":"a","error":"x","result":{"status":"completed"}}',
            Outcome(False, "x", b'{"status":"completed"}', True),
        ),
    ],
)
async def test_an_event_says_how_the_task_ended_with_the_result_byte_for_byte(
    channel: str, payload: bytes, outcome: Outcome
) -> None:
    async with world() as w:
        assert await w.outcome(channel, payload) == outcome


@pytest.mark.parametrize(
    ("channel", "payload", "completed", "error"),
    [
        (CHANNEL_COMPLETED, FLAT % b'"completed","output":"1.10\\n","error":"","exit_code":0', True, ""),
        (CHANNEL_COMPLETED, FLAT % b'"completed","output":"1","error":"a warning","n":1.10,"n":2', True, ""),
        (CHANNEL_COMPLETED, FLAT % b'"timeout","error":"after 30 s","exit_code":137', False, "after 30 s"),
        (CHANNEL_COMPLETED, FLAT % b'"timeout","error":"","exit_code":137', False, "timeout, exit code 137"),
        (CHANNEL_COMPLETED, FLAT % b'"timeout"', False, "timeout"),
        (CHANNEL_COMPLETED, FLAT % b'"failed","exit_code":2', False, "exit code 2"),
        (CHANNEL_COMPLETED, b' { "eval_id" : "\\u0061" }', True, ""),
        (CHANNEL_COMPLETED, b'{"eval_id":"a","result":null}', True, ""),
        (CHANNEL_COMPLETED, b'{"eval_id":"a","result":"1"}', True, ""),
        (
            CHANNEL_FAILED,
            FLAT % b'"failed","output":"a\\nb: c\\n\\n","error":"","exit_code":1',
            False,
            "exit code 1: b: c",
        ),
        (CHANNEL_FAILED, FLAT % b'"failed","output":"","error":null,"exit_code":1', False, "exit code 1"),
        (CHANNEL_FAILED, FLAT % b'"failed","output":"oops","exit_code":null', False, "Execution failed: oops"),
        (CHANNEL_FAILED, FLAT % b'"failed","output":["oops"],"exit_code":"1"', False, "Execution failed"),
        (CHANNEL_FAILED, FLAT % b'"completed","exit_code":0', False, "exit code 0"),
        (CHANNEL_FAILED, FLAT % b'["failed"]', False, "Execution failed"),
        (CHANNEL_FAILED, b'{"eval_id":"a","error":"killed"}', False, "killed"),
        (CHANNEL_FAILED, b'{"eval_id":"a"}', False, "Execution failed"),
        (CHANNEL_FAILED, b'{"eval_id":"a","error":{"c":1}}', False, '{"c": 1}'),
    ],
)
async def test_a_flat_event_is_the_result_byte_for_byte(
    channel: str, payload: bytes, completed: bool, error: str
) -> None:
    async with world() as w:
        assert await w.outcome(channel, payload) == Outcome(completed, error, payload, published=True)


async def test_only_the_beginning_of_a_long_last_line_becomes_the_error() -> None:
    async with world() as w:
        outcome = await w.outcome(CHANNEL_FAILED, FLAT % (b'"failed","exit_code":1,"output":"%b"' % (b"x" * 50_000)))
    assert outcome.error == "exit code 1: " + "x" * 300 + "…"


async def test_an_outcome_above_the_limit_fails_its_task_with_size_field_and_limit() -> None:
    payload = FLAT % (b'"completed","output":"%b"' % (b"x" * (MAX_BODY_BYTES + EVENT_ROOM_BYTES)))
    async with world() as w:
        outcome = await w.outcome(CHANNEL_COMPLETED, payload)
    assert outcome == Outcome(
        False,
        f"the published outcome has {len(payload):,} bytes, more than routing.maxBodyMebibytes allows (0.0953674 MiB)",
        published=True,
    )


async def test_an_event_that_only_lenient_libraries_read_counts() -> None:
    async with world() as w:
        outcome = await w.outcome(
            CHANNEL_COMPLETED, b'{"eval_id":"a","result":{"status":"completed","x":NaN,"t":"\xff"}}'
        )
    assert outcome == Outcome(True, "", b'{"status":"completed","x":null,"t":"\\ufffd"}', True)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{not json",
        b"null",
        b'["a"]',
        b'"a"',
        b"{}",
        b'{"eval_id":{}}',
        b'{"eval_id":null,"error":"e"}',
        b'{"eval_id":"b","error":"e"}',
        b'{"error":"e","eval_id":"b"}',
        b"[" * 50_000,
        b'{"n":1,"eval_id":"a","result":"' + b"x" * (MAX_BODY_BYTES + EVENT_ROOM_BYTES) + b'"}',
        b'{"eval_id":"a","n":NaN,"x":' + b"[" * 990 + b"]" * 990 + b"}",
    ],
)
async def test_what_is_not_an_event_of_the_task_is_ignored(payload: bytes) -> None:
    async with world() as w:
        outcome = await w.outcome(CHANNEL_FAILED, payload, b'{"eval_id":"a","error":"the right one"}')
    assert outcome.error == "the right one"


async def test_an_outcome_of_the_largest_size_counts() -> None:
    result = b'{"status":"completed","output":"' + b"x" * (MAX_BODY_BYTES - 34) + b'"}'
    assert len(result) == MAX_BODY_BYTES
    async with world() as w:
        outcome = await w.outcome(CHANNEL_COMPLETED, b'{"eval_id":"a","result":' + result + b"}")
    assert outcome.result == result


async def test_the_first_outcome_counts() -> None:
    async with world() as w:
        outcome = await w.outcome(CHANNEL_FAILED, b'{"eval_id":"a","error":"one"}', b'{"eval_id":"a","error":"two"}')
        assert outcome.error == "one"


async def test_an_outcome_that_comes_after_its_task_has_ended_is_dropped() -> None:
    async with world() as w:
        future = w.outcomes.subscribe("a")
        w.outcomes.unsubscribe("a")
        other = w.outcomes.subscribe("b")
        await w.outcomes.listen()
        for eval_id in (b"a", b"b"):
            await w.publish(CHANNEL_FAILED, b'{"eval_id":"%s"}' % eval_id)
        await asyncio.wait_for(other, PATIENCE_SECONDS)
        assert not future.done()


async def test_it_listens_until_it_is_stopped_and_not_while_a_task_waits() -> None:
    async with world() as w:
        assert not w.outcomes.listening
        await w.outcomes.listen()
        assert w.outcomes.listening
        assert await w.subscribers() == 1
        await w.outcomes.listen()
        assert await w.subscribers() == 1
        w.outcomes.subscribe("a")
        await w.outcomes.stop_listening()
        assert w.outcomes.listening
        w.outcomes.unsubscribe("a")
        await w.outcomes.stop_listening()
        assert not w.outcomes.listening
        await w.outcomes.listen()
        assert w.outcomes.listening


async def test_without_redis_listening_is_waited_for_a_moment_only() -> None:
    async with world() as w:
        w.server.connected = False
        await asyncio.wait_for(w.outcomes.listen(), PATIENCE_SECONDS)
        future = w.outcomes.subscribe("a")
        w.server.connected = True
        while not await w.subscribers():
            await asyncio.sleep(0.01)
        await w.publish(CHANNEL_FAILED, b'{"eval_id":"a","error":"it is back"}')
        assert (await asyncio.wait_for(future, PATIENCE_SECONDS)).error == "it is back"
