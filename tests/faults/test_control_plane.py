"""An operator without its API server, without its Lease, with another clock or another key: routing goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from tests.support.faults.http_faults import changes_key

if TYPE_CHECKING:
    from tests.support.faults.cluster import Cluster
    from tests.support.faults.proxy import Exchange
    from tests.support.faults.rig import Rig

# They share one control plane.
pytestmark = pytest.mark.xdist_group("control-plane")

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


async def rotated(exchange: Exchange) -> None:
    """The queue, as if its key were `second` now: in truth it still is `first`."""
    knows = b"x-api-key: second\r" in exchange.request.head.lower()
    await changes_key("first" if knows else "refused")(exchange)


async def live_routers(rig: Rig) -> int:
    async with Redis.from_url(rig.redis.url) as redis:
        return len([key async for key in redis.scan_iter("queueworker:*:lease:*")])


def longest_pause(rig: Rig, since: float) -> float:
    """The longest time between two tasks that the queue handed out, in seconds."""
    handed_out = [since, *(act.at for act in rig.ledger.acts if act.what == "handed-out" and act.at > since)]
    return max(after - before for before, after in pairwise(handed_out))


@pytest.mark.minute
async def test_the_api_server_is_away_for_a_minute_and_routing_does_not_notice(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: a leader that cannot renew its Lease goes on while nobody else routes."""
    await rig.start(worker=False)
    async with cluster.way() as way, cluster.operator(way) as leader:
        await cluster.says(leader, "leading")
        cluster.apply()
        rig.load(0.2)
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("connections to the API server are refused for a minute"):
            await way.refuse()
            for _ in range(10):
                await asyncio.sleep(6)
                await rig.progress(1)
            await way.restore()
        await rig.account()
        await cluster.says(leader, "leading")
        assert "was lost" not in leader.log()
        assert "draining" not in leader.log()


async def test_another_holder_is_written_into_the_lease(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: a leader that sees another holder drains, and takes the Lease again once it runs out."""
    await rig.start(worker=False, delay=0.5)
    async with cluster.operator() as leader:
        await cluster.says(leader, "leading")
        cluster.apply()
        rig.load(0.2)
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("another holder writes itself into the Lease, and is never seen again"):
            cluster.take_lease("somebody-else")
            await rig.until(lambda: "draining 1 routers" in leader.log(), "the leader drains")
            await cluster.says(leader, "standing by")
            assert not rig.running()
        await rig.account()
        await cluster.says(leader, "leading")


async def test_a_leader_is_told_to_stop_while_long_tasks_run_and_pulling_goes_on(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: the Lease goes when the drain begins; slots that a live rival holds count as taken."""
    await rig.start(worker=False, slots=12, delay=12)
    async with cluster.operator() as first, cluster.operator() as second:
        await cluster.says(first, "leading")
        await cluster.says(second, "standing by")
        cluster.apply(executors={"concurrency": 12}, routing={"drainSeconds": 60})
        rig.load(0.8)
        await rig.until(lambda: len(rig.running()) >= 5, "long tasks run")
        with rig.fault("SIGTERM of the leader while tasks of 12 s run, and a standby takes over"):
            stopped = time.monotonic()
            first.signal(signal.SIGTERM)
            await cluster.says(second, "leading")
            await cluster.pulls(second)
            still_running = first.process.poll() is None
        rig.workers.append(second)
        await rig.until(lambda: first.process.poll() is not None, "the first ends")
        await rig.account()
    print(f"pulling paused for {longest_pause(rig, stopped):.1f} s")
    assert still_running, "the standby waited for the leader's tasks"
    assert first.process.returncode == 0
    assert not rig.ledger.ids("failed")
    assert not rig.ledger.ids("refused"), "an executor was given more than its slots"


async def test_the_api_server_is_out_of_reach_for_the_leader_alone(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: it sees in Redis that another operator routes its objects, and drains."""
    await rig.start(worker=False, delay=0.3)
    async with cluster.way() as way, cluster.operator(way) as first:
        await cluster.says(first, "leading")
        cluster.apply()
        rig.load(0.1)
        await rig.progress()
        async with cluster.operator() as second:
            await cluster.says(second, "standing by")
            with rig.fault("what the leader sends to the API server vanishes, until the other leads"):
                way.swallow()
                await cluster.says(second, "leading")
                await rig.until(lambda: "draining 1 routers" in first.log(), "the first drains")
                await rig.progress()
                async with asyncio.timeout(45):
                    while await live_routers(rig) != 1:
                        await asyncio.sleep(0.1)
                await way.restore()
            rig.workers.append(second)
            await rig.account()
            await cluster.says(first, "standing by")


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: apt-get install faketime)")
@pytest.mark.parametrize(
    ("whose", "hours"),
    [("leader", 1), ("leader", -1), ("standby", 1)],
    ids=["the leader, forward", "the leader, back", "the standby, forward"],
)
async def test_an_operators_clock_is_set(rig: Rig, cluster: Cluster, whose: str, hours: int) -> None:
    """Mechanism: the monotonic clock; the times that others write into the Lease are never read."""
    await rig.start(worker=False, delay=0.3)
    clock = cluster.folder / "clock"
    clock.write_text("+0\n")
    fake = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    async with cluster.operator(environ=fake if whose == "leader" else {}) as leader:
        await cluster.says(leader, "leading")
        cluster.apply()
        rig.load(0.1)
        await rig.progress()
        rig.workers.append(leader)
        async with cluster.operator(environ=fake if whose == "standby" else {}) as standby:
            await cluster.says(standby, "standing by")
            with rig.fault(f"the wall clock of the operator that is the {whose} is set by {hours:+} h"):
                clock.write_text(f"{hours:+}h\n")
                await asyncio.sleep(10)
                shown = await cluster.clock_of(leader if whose == "leader" else standby)
                assert abs(shown - time.time() - hours * 3600) < 60, "the clock was not set"
            await rig.account()
            await cluster.says(leader, "leading")
            await cluster.says(standby, "standing by")
            assert "leading as" not in standby.log()
        assert "was lost" not in leader.log()
    assert not rig.ledger.ids("failed")


async def test_the_queues_key_is_rotated_before_the_secret_changes(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: a refused key has the Secret read again, every two seconds; tasks and reports wait for it."""
    await rig.start(worker=False, key="first", delay=0.3)
    cluster.kubectl("create", "secret", "generic", "key", "-n", cluster.namespace, "--from-literal=api-key=first")
    async with cluster.operator() as leader:
        await cluster.says(leader, "leading")
        cluster.apply(queue={"apiKeySecretRef": {"name": "key", "key": "api-key"}})
        rig.load(0.1)
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("the queue takes another key only; the Secret follows 3 s later"):
            rig.queue.proxy.spoil(rotated)
            await asyncio.sleep(3)
            patch = json.dumps({"stringData": {"api-key": "second"}})
            cluster.kubectl("patch", "secret", "key", "-n", cluster.namespace, "-p", patch)
        await rig.account()
    assert not rig.ledger.ids("failed")
