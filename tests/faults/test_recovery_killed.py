"""A successor that is killed while it takes over: the next one finds everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from tests.support.faults.deaths import kill_at, left_by, watched
from tests.support.faults.redis_proxy import Moment, Write

if TYPE_CHECKING:
    from tests.support.faults.rig import Rig


async def lease_is_out(rig: Rig) -> None:
    """Return when no instance has a lease: then the next heartbeat of any router takes over."""
    async with Redis.from_url(rig.redis.url) as redis:
        await redis.ping()
        leases = 1
        while leases:
            leases = len([key async for key in redis.scan_iter("queueworker:*:lease:*")])


@pytest.mark.parametrize(
    ("write", "moment"),
    [
        (Write.HEARTBEAT, Moment.BEFORE),
        (Write.HEARTBEAT, Moment.AFTER),
        (Write.EXECUTING, Moment.BEFORE),
        (Write.EXECUTING, Moment.AFTER),
        (Write.EXECUTED, Moment.BEFORE),
        (Write.EXECUTED, Moment.AFTER),
    ],
)
async def test_the_successor_is_killed_around_its_write_of(rig: Rig, write: Write, moment: Moment) -> None:
    """Mechanism: one script moves the entries into the successor's own journal, where the next successor finds them.

    The heartbeat takes over; `executing` and `executed` are of a task that was taken over.
    """
    await rig.start(worker=False, delay=0.2)
    async with watched(rig) as first_way, watched(rig) as second_way:
        first = await rig.start_worker(REDIS_URL=first_way.redis_url)
        rig.load(0.1)
        await rig.progress()
        with rig.fault(f"SIGKILL of the router; then of its successor {moment} Redis gets its write '{write}'"):
            await kill_at(rig, first, first_way.at(Write.EXECUTING, Moment.AFTER, first.process.kill))
            left = await left_by(rig, first_way)
            await lease_is_out(rig)
            among = None if write is Write.HEARTBEAT else left.in_state("executing")
            await second_way.refuse()
            # Required: it pulls nothing before it has its lease, so the takeover comes first.
            second = await rig.start_worker(REDIS_URL=second_way.redis_url, JOURNAL="Required")
            point = second_way.at(write, moment, second.process.kill, among=among)
            await second_way.restore()
            await kill_at(rig, second, point)
            left_in_the_end = await left_by(rig, first_way, second_way)
        assert left.in_state("executing")
        assert left.journal.keys() - rig.ledger.ids("completed") <= left_in_the_end.journal.keys()
        await rig.start_worker()
        given = left_in_the_end.exceptions()
        given["may_run_twice"] = left.in_state("executing") | left_in_the_end.in_state("executing")
        given["twice_why"] = "what was executing when a router died: `recovery` is Retry"
        given["told_again"] = left.taken | left_in_the_end.taken
        await rig.account(**given)
    runs = rig.ledger.by_id("started")
    if (write, moment) == (Write.EXECUTED, Moment.AFTER):
        assert all(len(runs[eval_id]) <= 2 for eval_id in point.ids), "the last of three routers ran none of them"
