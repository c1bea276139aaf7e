"""Random faults of all kinds for two minutes, or for as long as `SOAK_SECONDS` says (`make soak`: 30 minutes).

The faults are chosen by a seed, which is printed; SOAK_SEED=… chooses the same ones again.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.deaths import WINDOW, watched
from tests.support.faults.soak import Soak

if TYPE_CHECKING:
    from tests.support.faults.cluster import Cluster
    from tests.support.faults.rig import Rig
    from tests.support.worker_processes import WorkerProcess

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
SEED = os.environ.get("SOAK_SEED", "1")
WARM = 0.25
"""The share of the time after which memory must not grow any more."""
MAX_GROWTH_BYTES = 16 << 20
MAX_LEFT_OPEN = 4
"""Files and sockets that may be open in the end, beside those of the beginning."""
RESULT = (
    "random faults of all kinds, one after the other",
    "nothing, but for what was popped for a gateway's 502 or 504, and what was in no journal when a router was killed",
    "what was executing when a router was killed: `recovery` is Retry",
    "under 10 s",
)

# It has a control plane of its own, so that it runs beside the other cases.
pytestmark = pytest.mark.xdist_group("soak")


async def resident(rig: Rig, worker: WorkerProcess) -> float:
    return (await rig.metrics(worker))["process_resident_memory_bytes"]


async def open_files(rig: Rig, worker: WorkerProcess) -> float:
    return (await rig.metrics(worker))["process_open_fds"]


@pytest.mark.minute
async def test_random_faults_lose_nothing_and_leave_nothing_behind(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: all of them. A worker lives through everything; its memory, sockets and slots are compared."""
    await rig.start(executors=3, delay=0.2, worker=False)
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        await rig.healthy(3)
        idle = await open_files(rig, worker)
        soak = Soak(rig, cluster, way, SEED)
        cluster.apply(events={"redisURL": way.redis_url})
        async with soak.running():
            rig.load(0.1)
            await rig.progress()
            grown = await make_faults(rig, soak, worker)
            await settle(rig, soak)
            assert grown < MAX_GROWTH_BYTES, f"the memory of a worker grew by {grown / 2**20:.0f} MiB"
            async with asyncio.timeout(60):
                while await open_files(rig, worker) > idle + MAX_LEFT_OPEN:
                    await asyncio.sleep(0.5)
            broken = [process.log() for process in soak.operators if "Traceback" in process.log()]
            assert not broken, broken[0]


async def make_faults(rig: Rig, soak: Soak, worker: WorkerProcess) -> float:
    """Returns the bytes by which the worker's memory has grown since it was warm."""
    began = time.monotonic()
    warm: float | None = None
    with rig.fault(f"random faults, SOAK_SEED={SEED}"):
        while (passed := time.monotonic() - began) < SECONDS:
            await soak.next()
            memory = await resident(rig, worker)
            if warm is None and time.monotonic() - began > SECONDS * WARM:
                warm = memory
            what = f"{passed:5.0f} s: {soak.done[-1]}"
            print(f"{what}; {rig.ledger.reports()} reports, {memory / 2**20:.0f} MiB", flush=True)
    assert warm is not None
    return await resident(rig, worker) - warm


async def settle(rig: Rig, soak: Soak) -> None:
    """The load ends, and the account is drawn up."""
    rig.workers.append(soak.leader)
    unjournaled = soak.unjournaled()
    toll = soak.toll
    await rig.account(
        patience=90,
        lost=toll.lost,
        lost_why="popped for a gateway's 502 or 504",
        unjournaled=unjournaled,
        may_run_twice=toll.may_run_twice,
        twice_why=WINDOW,
        told_again=toll.told_again,
    )
    rig.result = RESULT  # What it happens to be differs from run to run.
