"""What the absence of a router's peers does to tasks: they are late, and each is reported once."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from queueworker.routing.snapshot import LinkReason
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
    async with Redis.from_url(own_redis.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "queueworker", *rights)
        async with running(queue, [executor], url, routing={"journal": "Required"}) as router:
            queue.submit("a")
            await queue.reported(1)
            await until(lambda: router.snapshot().counters.events_published == 1)
            assert router.snapshot().journal.ok
            await admin.execute_command("ACL", "SETUSER", "queueworker", "resetchannels")
            queue.submit(*(f"t{i}" for i in range(10)))
            await until(lambda: router.snapshot().journal.reason is LinkReason.AUTHENTICATION_FAILED)
            pulled = router.snapshot().counters.pulled
            await asyncio.sleep(7)  # three heartbeats
            assert router.snapshot().counters.pulled <= pulled + 1, "a poll may have been under way"
            assert "docs/security.md" in router.snapshot().journal.message
            await admin.execute_command("ACL", "SETUSER", "queueworker", "&evaluation:*")
            await queue.reported(11, 30)
