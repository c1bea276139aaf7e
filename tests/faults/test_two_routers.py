"""A router that was declared dead and is alive: whatever it still does is refused."""

from __future__ import annotations

import asyncio
import functools
import signal
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from tests.support.faults.deaths import AMBIGUOUS, in_journals, left_by, watched
from tests.support.faults.redis_proxy import Moment, Write

if TYPE_CHECKING:
    from tests.support.faults.rig import Rig

FROZEN_TWICE = "the tasks that the frozen router's journal had as executing: its successor cannot know how they ended"


async def fenced(rig: Rig) -> bool:
    """Whether some instance was declared dead."""
    async with Redis.from_url(rig.redis.url) as redis:
        return bool([key async for key in redis.scan_iter("queueworker:*:fenced:*")])


async def until_fenced(rig: Rig) -> None:
    async with asyncio.timeout(45):
        while not await fenced(rig):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("write", "connection"),
    [(Write.EXECUTING, "kept"), (Write.EXECUTED, "kept"), (Write.REMOVAL, "kept"), (Write.EXECUTED, "reset")],
)
async def test_a_router_frozen_for_longer_than_its_lease_reports_nothing_that_its_successor_has(
    rig: Rig, write: Write, connection: str
) -> None:
    """Mechanism: past its lease a router verifies it before it reports anything, and its batches are refused.

    Its connection to Redis may be gone by then.
    """
    await rig.start(worker=False, delay=0.3)
    async with watched(rig) as way:
        first = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load(0.1)
        await rig.progress()
        what = f"SIGSTOP of the router after its write '{write}', SIGCONT after its lease was lost"
        with rig.fault(f"{what}; its connection to Redis is {connection}"):
            freeze = functools.partial(first.signal, signal.SIGSTOP)
            point = way.at(write, Moment.AFTER, freeze, resets=connection == "reset")
            await rig.until(lambda: point.reached, "the router frozen")
            left = await left_by(rig, way)
            await rig.start_worker()
            await until_fenced(rig)
            await rig.progress()
            first.signal(signal.SIGCONT)
        await rig.until(lambda: "was declared dead" in first.log(), "the first hears of it")
        given = left.exceptions() | {"unjournaled": (), "lost_why": ""}
        await rig.account(**given | {"twice_why": FROZEN_TWICE if left.in_state("executing") else ""})


async def test_a_router_frozen_for_less_than_its_lease_goes_on(rig: Rig) -> None:
    """Mechanism: the lease is longer than a pause of a process or a machine usually is."""
    await rig.start(delay=0.3)
    rig.load(0.1)
    await rig.progress()
    await rig.start_worker()
    with rig.fault("SIGSTOP of one of two routers for 3 s, then SIGCONT"):
        rig.workers[0].signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        rig.workers[0].signal(signal.SIGCONT)
    await rig.account()
    assert not await fenced(rig)


async def test_a_router_cut_off_from_redis_alone_loses_its_lease_and_no_task(rig: Rig) -> None:
    """Mechanism: both routers report the tasks that ended meanwhile: the price of `journal: Preferred`."""
    await rig.start(worker=False, delay=0.3)
    async with watched(rig) as way:
        first = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load(0.1)
        await rig.progress()
        with rig.fault("one of two routers cannot reach Redis until its lease is lost"):
            await way.refuse()
            held = await in_journals(rig)
            await rig.start_worker()
            await until_fenced(rig)
            await rig.progress()
            await way.restore()
        await rig.until(lambda: "was declared dead" in first.log(), "the first hears of it")
        why = AMBIGUOUS.replace("died", "was cut off")
        await rig.account(may_run_twice=held, twice_why=why, told_again=held)
