"""What the absence of a router's peers does to tasks: they are late, and each is reported once."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queueworker.routing.snapshot import LinkReason
from tests.support.redis_state import published, set_user
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, until

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer


async def test_nothing_is_lost_when_redis_restarts_empty(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    executor.delay = 0.01
    queue.submit(*(f"t{i}" for i in range(300)))
    async with running(queue, [executor], own_redis.url, executors={"concurrency": 4}) as router:
        await queue.reported(50)
        own_redis.kill()
        await until(lambda: not router.snapshot().journal.ok)
        before = len(queue.reports)
        await queue.reported(before + 50)  # routing goes on without it
        await asyncio.to_thread(own_redis.start)
        await until(lambda: router.snapshot().journal.ok, 15)
        await queue.reported(300, 30)
        await until(lambda: router.snapshot().counters.events_published == 300)
        counters = router.snapshot().counters
    assert set(queue.reports.values()) == {1}
    assert counters.events_dropped == 0


async def test_a_frozen_redis_delays_routing_for_a_moment_only(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    async with running(queue, [executor], own_redis.url) as router:
        queue.submit("a")
        await queue.reported(1)
        own_redis.pause()
        try:
            queue.submit(*(f"t{i}" for i in range(20)))
            await queue.reported(21, 15)
            assert router.snapshot().journal.reason is LinkReason.CONNECTION_FAILED
        finally:
            own_redis.resume()
        await until(lambda: router.snapshot().journal.ok, 15)
        await until(lambda: router.snapshot().events_buffered == 0)


async def test_tasks_that_end_while_the_queue_is_away_are_reported_when_it_is_back(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a", "b", "c")
    async with running(queue, [executor], redis_url, executors={"concurrency": 3}) as router:
        await until(lambda: executor.in_flight == 3)
        await queue.stop()
        executor.gate.set()
        await until(lambda: router.snapshot().consecutive_errors == 1)
        assert router.snapshot().queue.reason is LinkReason.CONNECTION_FAILED
        await queue.start()
        await queue.reported(3, 15)
        await until(lambda: router.snapshot().queue.ok)
        assert router.snapshot().consecutive_errors == 0
    assert queue.reports == {"a": 1, "b": 1, "c": 1}


async def test_a_report_ends_when_the_queue_has_restarted_and_forgotten_its_tasks(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: executor.in_flight == 1)
        queue.known.clear()
        executor.gate.set()
        await until(lambda: router.snapshot().counters.reports_unknown == 1)
        await until(lambda: router.snapshot().in_flight == 0)
        await until(lambda: router.snapshot().counters.events_published == 1)


RIGHTS = re.search(r"^ACL SETUSER queueworker (.+)$", Path("docs/security.md").read_text("utf-8"), re.MULTILINE)


async def test_a_user_with_the_rights_of_the_documentation_may_do_all_and_without_a_channel_nothing_is_pulled(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    assert RIGHTS is not None
    rights = RIGHTS[1].replace(">PASSWORD", ">secret").split()
    url = own_redis.url.replace("//", "//queueworker:secret@")
    await set_user(own_redis.url, "queueworker", *rights)
    async with running(queue, [executor], url, routing={"journal": "Required"}) as router:
        queue.submit("a")
        await queue.reported(1)
        await until(lambda: router.snapshot().counters.events_published == 1)
        assert router.snapshot().journal.ok
        await set_user(own_redis.url, "queueworker", "resetchannels")
        queue.submit(*(f"t{i}" for i in range(10)))
        await until(lambda: router.snapshot().journal.reason is LinkReason.AUTHENTICATION_FAILED)
        pulled = router.snapshot().counters.pulled
        await asyncio.sleep(7)  # three heartbeats
        assert router.snapshot().counters.pulled <= pulled + 1, "a poll may have been under way"
        assert "docs/security.md" in router.snapshot().journal.message
        await set_user(own_redis.url, "queueworker", "&evaluation:*")
        await queue.reported(11, 30)


@pytest.mark.parametrize("command", ["HSET", "HDEL"])
async def test_a_command_that_the_user_of_redis_may_not_run_is_named_until_it_may(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer, command: str
) -> None:
    assert RIGHTS is not None
    url = own_redis.url.replace("//", "//queueworker:secret@")
    await set_user(own_redis.url, "queueworker", *RIGHTS[1].replace(">PASSWORD", ">secret").split(), f"-{command}")
    said: set[str] = set()
    async with published(own_redis.url) as heard, running(queue, [executor], url) as router:
        for i in range(5):
            queue.submit(f"t{i}")
            await queue.reported(i + 1)
            await asyncio.sleep(0.5)  # in all longer than a heartbeat
            said.add(router.snapshot().journal.message)
        assert {message.partition(": ")[2].partition(" (")[0] for message in said} == {
            f"its user has no permissions to run {command}"
        }
        await set_user(own_redis.url, "queueworker", f"+{command}")
        await until(lambda: router.snapshot().journal.ok and len(heard) >= 5)
        assert len(heard) == 5, "each event is published once"
