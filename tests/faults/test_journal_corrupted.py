"""A journal that was damaged by hand: the damage is named and set aside, and the tasks that it names are reported."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import orjson
import pytest
from redis.asyncio import Redis

from tests.support.faults.deaths import left_by, watched
from tests.support.faults.redis_proxy import Moment, Write

if TYPE_CHECKING:
    from tests.support.faults.rig import Rig

FIELD = (
    b"{not json",
    b"[1, 2]",
    b'{"state": "dreaming"}',
    b'{"state": "executing", "queue": 5, "attempt": {}}',
    b"\xff\x00",
)


async def group(redis: Redis) -> str:
    """The group of the only journals there are."""
    (key,) = [cast("bytes", key) async for key in redis.scan_iter("queueworker:*:instances")]
    return key.decode().partition("{")[2].partition("}")[0]


async def dead(redis: Redis) -> str:
    """The journal's key of the router that just died, with a task executing."""
    (key,) = [cast("bytes", key) async for key in redis.scan_iter("queueworker:*:journal:*")]
    return key.decode()


async def test_entries_that_cannot_be_read_are_set_aside_and_their_tasks_reported_as_failed(rig: Rig) -> None:
    """Mechanism: every entry is read by itself, and one that cannot be read is kept for a person."""
    await rig.start(worker=False, executors=4, delay=3)
    async with watched(rig) as way, Redis.from_url(rig.redis.url) as redis:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.submit(8)
        with rig.fault("SIGKILL of the router; bad JSON, wrong types and unknown states in its journal"):
            await rig.until(lambda: list(way.held.values()).count("executing") >= len(FIELD), "tasks in the journal")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
            key = await dead(redis)
            damaged = sorted(left.in_state("executing") - left.taken)[: len(FIELD)]
            for eval_id, entry in zip(damaged, FIELD, strict=True):
                await redis.hset(key, eval_id, entry)
        rig.load(0.5)
        successor = await rig.start_worker()
        given = left.exceptions()
        given["may_run_twice"] = left.in_state("executing") - set(damaged)
        await rig.account(**given)
        aside = await redis.hgetall(key.partition("journal:")[0] + "quarantine")
    assert set(damaged) <= rig.ledger.ids("failed")
    assert {k.decode(): v for k, v in cast("dict[bytes, bytes]", aside).items()} == dict(
        zip(damaged, FIELD, strict=True)
    )
    assert all(f"journal entry of {eval_id} cannot be read" in successor.log() for eval_id in damaged)


async def test_unknown_fields_in_an_entry_are_ignored(rig: Rig) -> None:
    """Mechanism: a newer version's entry is read as far as this one knows it."""
    await rig.start(worker=False, delay=0.3)
    async with watched(rig) as way, Redis.from_url(rig.redis.url) as redis:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()
        with rig.fault("SIGKILL of the router; its entries get unknown fields"):
            await rig.until(lambda: "executing" in way.held.values(), "a task in the journal")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
            key = await dead(redis)
            for eval_id, entry in cast("dict[bytes, bytes]", await redis.hgetall(key)).items():
                await redis.hset(key, eval_id, orjson.dumps(orjson.loads(entry) | {"colour": {"of": ["grass"]}}))
        await rig.start_worker()
        await rig.account(**left.exceptions())
    assert not rig.ledger.ids("failed")


async def test_a_field_that_is_not_text_is_set_aside(rig: Rig) -> None:
    """Mechanism: no queue can have handed out such an id, so it is reported to none."""
    await rig.start(worker=False, delay=0.3)
    async with watched(rig) as way, Redis.from_url(rig.redis.url) as redis:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()
        with rig.fault("SIGKILL of the router; its journal gets a field whose name is not UTF-8"):
            await rig.until(lambda: "executing" in way.held.values(), "a task in the journal")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
            key = await dead(redis)
            await redis.hset(key, cast("str", b"\xff\xfe"), b"noise")
        successor = await rig.start_worker()
        await rig.account(**left.exceptions())
        aside = await redis.hgetall(key.partition("journal:")[0] + "quarantine")
        left_over = [key async for key in redis.scan_iter("queueworker:*:journal:*")]
    assert aside == {b"\xff\xfe": b"noise"}
    assert left_over == []
    assert "cannot be read" in successor.log()


@pytest.mark.parametrize("whose", ["a dead router", "a live router"])
async def test_a_journal_that_is_not_a_hash_is_set_aside(rig: Rig, whose: str) -> None:
    """Mechanism: a key of the wrong type is renamed, and a live router writes what it holds anew."""
    await rig.start(worker=False, delay=0.3)
    async with watched(rig) as way, Redis.from_url(rig.redis.url) as redis:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()
        base = f"queueworker:{{{await group(redis)}}}:"
        with rig.fault(f"the journal of {whose} is replaced by a string; SIGKILL of the router"):
            if whose == "a dead router":
                await redis.set(f"{base}journal:ghost", "noise")
                await redis.sadd(f"{base}instances", "ghost")
                aside = f"{base}quarantine:ghost"
            else:
                (key,) = [cast("bytes", key).decode() async for key in redis.scan_iter(f"{base}lease:*")]
                name = key.removeprefix(f"{base}lease:")
                await redis.set(f"{base}journal:{name}", "noise")
                aside = f"{base}quarantine:{name}"
            async with asyncio.timeout(45):
                while not await redis.exists(aside):
                    await asyncio.sleep(0.1)
            await rig.progress()
            point = way.at(Write.EXECUTED, Moment.AFTER, worker.process.kill)
            await rig.until(lambda: point.reached, "the router killed")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
        await rig.start_worker()
        await rig.account(**left.exceptions())
        assert await redis.get(aside) == b"noise"
    assert "no hash" in worker.log()
