"""A Redis that is away, restarted, slow, full or read-only: routing goes on, or waits, as `routing.journal` says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
from redis.asyncio import Redis

from devcluster.ports import free_ports
from tests.support.faults.deaths import left_by, watched
from tests.support.faults.http_faults import response, rewrites

if TYPE_CHECKING:
    from tests.support.faults.proxy import Message
    from tests.support.faults.rig import Rig


async def restarted_empty(rig: Rig) -> None:
    """Restart Redis empty. The subscriber is back before the router, or it would miss events."""
    await rig.redis_proxy.refuse()
    await asyncio.to_thread(rig.redis.kill)
    await asyncio.to_thread(rig.redis.start)
    await rig.events.subscribed()
    await rig.redis_proxy.restore()


async def journal_is(rig: Rig, writable: bool) -> None:
    """Return when the worker says that its journal is writable, or is not."""
    async with asyncio.timeout(45):
        while await rig.link_up("journal") != writable:
            await asyncio.sleep(0.1)


async def test_redis_is_restarted_and_has_forgotten_everything(rig: Rig) -> None:
    """Mechanism: batches that failed are written again."""
    await rig.start()
    rig.load()
    await rig.progress()
    with rig.fault("SIGKILL of Redis, which comes back empty"):
        await restarted_empty(rig)
    await journal_is(rig, True)
    await rig.account()


async def test_a_router_is_killed_after_redis_came_back_empty(rig: Rig) -> None:
    """Mechanism: a lease that is new although the router had one means that Redis forgot: all is written again."""
    await rig.start(worker=False, delay=6, slots=4, TASK_TIMEOUT_SECONDS="60")
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.submit(8)
        await rig.until(lambda: len(way.held) == 8, "eight tasks in the journal")
        with rig.fault("SIGKILL of Redis, which comes back empty; then of the router, before any task has ended"):
            await way.refuse()
            await asyncio.to_thread(rig.redis.kill)
            way.held.clear()
            await asyncio.to_thread(rig.redis.start)
            await rig.events.subscribed()
            await way.restore()
            await rig.until(lambda: len(way.held) == 8, "eight tasks in the journal again")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
        assert not left.unjournaled
        rig.load(1)
        await rig.start_worker()
        await rig.account(**left.exceptions())


@pytest.mark.minute
async def test_redis_is_away_for_a_minute_and_routing_goes_on(rig: Rig) -> None:
    """Mechanism: `journal: Preferred`, and a buffer for events."""
    await rig.start()
    rig.load(0.2)
    await rig.progress()
    with rig.fault("connections to Redis are refused for a minute"):
        await rig.redis_proxy.refuse()
        for _ in range(6):
            await asyncio.sleep(10)
            await rig.progress(1)
        await rig.redis_proxy.restore()
    await rig.account()
    assert not rig.ledger.ids("failed")


def _sixty_kilobytes(answer: Message) -> bytes:
    return response(200, orjson.dumps(orjson.loads(answer.body) | {"output": "x" * 60_000}))


async def test_events_that_have_waited_for_redis_get_through_a_slow_link(rig: Rig) -> None:
    """Mechanism: a batch holds 512 KiB of events at most. All at once would never be through in its 2 s."""
    await rig.start(slots=8, delay=0.02)
    for site in rig.executors:
        site.proxy.spoil(rewrites(_sixty_kilobytes), "/execute")
    with rig.fault("connections to Redis are refused while 200 results of 60 KB come; then the link is slow"):
        await rig.redis_proxy.refuse()
        rig.submit(200, 0.01)
        await rig.idle()
        rig.redis_proxy.latency = 0.03  # for each 64 KiB: some 6 s for all of them
        await rig.redis_proxy.restore()
    rig.load(0.2)
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_nothing_is_pulled_while_redis_is_away_and_the_journal_is_required(rig: Rig) -> None:
    """Mechanism: `journal: Required`."""
    await rig.start(JOURNAL="Required")
    rig.load()
    await rig.progress()
    with rig.fault("connections to Redis are refused for 8 s, under `journal: Required`"):
        await rig.redis_proxy.refuse()
        await journal_is(rig, False)
        await rig.until(lambda: not rig.running(), "the running tasks are reported")
        await asyncio.sleep(0.5)
        before = rig.ledger.ids("handed-out")
        await asyncio.sleep(6)
        assert rig.ledger.ids("handed-out") == before
        await rig.redis_proxy.restore()
    await rig.account()


async def test_a_router_is_killed_while_redis_is_away_and_the_journal_is_required(rig: Rig) -> None:
    """Mechanism: as above. The journal still has what was reported meanwhile, which is run and reported again."""
    await rig.start(worker=False, delay=1, JOURNAL="Required")
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load(0.4)
        await rig.progress()
        await rig.until(lambda: len(rig.running()) > 1, "tasks run")
        with rig.fault("connections to Redis are refused, and then SIGKILL of the router"):
            await way.refuse()
            await rig.progress(1)  # of those: nothing more is pulled
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
        await rig.start_worker()
        await rig.account(**left.exceptions(without_journal=True))


async def test_redis_pauses_its_clients(rig: Rig) -> None:
    """Mechanism: a time limit on each operation."""
    await rig.start()
    rig.load()
    await rig.progress()
    async with Redis.from_url(rig.redis.url) as redis:
        with rig.fault("CLIENT PAUSE of 5 s"):
            await redis.client_pause(5000)
            await journal_is(rig, False)
            await rig.progress(1)
            await asyncio.sleep(3)
        await rig.account()


async def test_redis_falls_silent_on_open_connections(rig: Rig) -> None:
    """Mechanism: as above; a batch that Redis may have or not is written again."""
    await rig.start()
    rig.load()
    await rig.progress()
    with rig.fault("what is sent to Redis vanishes, for 8 s"):
        rig.redis_proxy.swallow()
        await journal_is(rig, False)
        await rig.progress(1)
        await asyncio.sleep(6)
        await rig.redis_proxy.restore()
    await rig.account()


async def test_redis_is_slow(rig: Rig) -> None:
    """Mechanism: batches; a task waits for one write at its end, and a slow write is not a failed one."""
    await rig.start()
    rig.load()
    await rig.progress()
    with rig.fault("whatever is sent to Redis, and its answers, take 0.4 s for 6 s"):
        rig.redis_proxy.latency = 0.4
        before = rig.ledger.reports()
        await asyncio.sleep(6)
        reported = rig.ledger.reports() - before
        rig.redis_proxy.latency = 0.0
    await rig.account()
    assert (await rig.metrics(rig.workers[0]))["queueworker_journal_errors_total"] == 0
    assert reported > 15, "one write at a time for each task would leave time for no more than a few"


async def pulls_as(rig: Rig, policy: str) -> None:
    """While the journal cannot be written, for 4 s: with `Required` nothing is pulled, with `Preferred` tasks are."""
    before = rig.ledger.ids("handed-out")
    await asyncio.sleep(4)
    if policy == "Required":
        assert rig.ledger.ids("handed-out") == before
    else:
        assert rig.ledger.ids("handed-out") > before


@pytest.mark.parametrize("policy", ["Preferred", "Required"])
async def test_redis_is_out_of_memory_under_journal(rig: Rig, policy: str) -> None:
    """Mechanism: events need no memory, and go on. (Another case shows that refused entries are written again.)"""
    await rig.start(JOURNAL=policy)
    rig.load()
    await rig.progress()
    async with Redis.from_url(rig.redis.url) as redis:
        with rig.fault("CONFIG SET maxmemory 1 for 4 s"):
            await redis.config_set("maxmemory", 1)
            await journal_is(rig, False)
            await asyncio.sleep(0.5)
            heard = len(rig.events.seen)
            await pulls_as(rig, policy)
            if policy == "Preferred":
                assert len(rig.events.seen) > heard
            await redis.config_set("maxmemory", 0)
    await journal_is(rig, True)
    await rig.account()
    assert not rig.ledger.ids("failed")


async def journal_on_disk(redis: Redis) -> None:
    """Have Redis write its data to an append-only file. Returns when it does."""
    await redis.config_set("appendonly", "yes")
    async with asyncio.timeout(20):
        while True:
            shown = await redis.info("persistence")
            if shown["aof_enabled"] and not shown["aof_rewrite_in_progress"] and not shown["aof_rewrite_scheduled"]:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("policy", ["Preferred", "Required"])
async def test_the_disk_of_redis_is_full_under_journal(rig: Rig, policy: str) -> None:
    """Mechanism: a batch that is refused is refused whole, and is written again. Redis holds events back as well."""
    await rig.start(JOURNAL=policy)
    rig.load()
    await rig.progress()
    async with Redis.from_url(rig.redis.url) as redis:
        await journal_on_disk(redis)
        with rig.fault(
            "Redis cannot write its append-only file for 5 s, as on a full disk: every write answers MISCONF"
        ):
            rig.redis.set_disk_full(full=True)
            await journal_is(rig, False)
            await asyncio.sleep(0.5)
            await pulls_as(rig, policy)
            assert "MISCONF Errors writing to the AOF file" in rig.workers[0].log()
            rig.redis.set_disk_full(full=False)
    await journal_is(rig, True)
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert all(len(heard) == 1 for heard in rig.events.by_id().values()), "published by a batch that was refused"


async def test_redis_is_a_replica_that_takes_no_writes(rig: Rig) -> None:
    """Mechanism: a batch that is refused is refused whole, and is written again."""
    await rig.start()
    rig.load()
    await rig.progress()
    (nobody,) = free_ports(1)
    async with Redis.from_url(rig.redis.url) as redis:
        with rig.fault("REPLICAOF a host that is not there, for 8 s: every write answers READONLY"):
            await redis.replicaof("127.0.0.1", nobody)
            await journal_is(rig, False)
            await rig.progress(2)
            await asyncio.sleep(7)
            await redis.replicaof("NO", "ONE")
    await journal_is(rig, True)
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert all(len(heard) == 1 for heard in rig.events.by_id().values()), "published by a batch that was refused"


async def test_a_router_is_killed_after_redis_refused_its_writes_for_a_while(rig: Rig) -> None:
    """Mechanism: entries that were refused are written as soon as possible, so a crash after that loses nothing."""
    await rig.start(worker=False, delay=6, TASK_TIMEOUT_SECONDS="60")
    async with watched(rig) as way, Redis.from_url(rig.redis.url) as redis:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        await journal_is(rig, True)  # A router without a lease writes all its entries again when it gets one.
        with rig.fault("CONFIG SET maxmemory 1 while tasks begin; then SIGKILL of the router, before any has ended"):
            await redis.config_set("maxmemory", 1)
            await journal_is(rig, False)
            rig.submit(4)
            await rig.until(lambda: len(rig.running()) == 4, "four tasks run")
            await asyncio.sleep(0.5)
            assert not way.held
            await redis.config_set("maxmemory", 0)
            await rig.until(lambda: [*way.held.values()] == ["executing"] * 4, "four tasks in the journal")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
        assert not left.unjournaled
        await rig.start_worker()
        await rig.progress(1)
        await rig.account(**left.exceptions())
