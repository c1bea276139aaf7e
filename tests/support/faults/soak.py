"""Random faults of all kinds, one after the other, and what each of them makes unavoidable."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tests.support.faults.deaths import QUIET_SECONDS, in_journals
from tests.support.faults.gateway import Gateway
from tests.support.faults.ledger import TAKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.faults.cluster import Cluster
    from tests.support.faults.redis_proxy import RedisProxy
    from tests.support.faults.rig import Rig
    from tests.support.worker_processes import WorkerProcess

DEATH_SECONDS = 3.0
"""What was handed out so shortly before or after a router's death may be in no journal."""
GATEWAY_SECONDS = 5.0


@dataclass
class Toll:
    """By id, what the faults until now may have cost: `Exceptions` of the account."""

    lost: set[str] = field(default_factory=set)
    told_again: set[str] = field(default_factory=set)
    may_run_twice: set[str] = field(default_factory=set)
    deaths: list[float] = field(default_factory=list)


class Soak:
    """A leading operator and a standby, which are killed and replaced, and a worker beside them that lives on.

    All routers reach Redis by `way`, and all of them pull from the rig's queue.
    """

    def __init__(self, rig: Rig, cluster: Cluster, way: RedisProxy, seed: str) -> None:
        self.toll = Toll()
        self.done: list[str] = []
        """The faults until now, in words."""
        self.operators: list[WorkerProcess] = []
        """All that were started; the last two live, and the first of these leads."""
        self._rig = rig
        self._cluster = cluster
        self._way = way
        self._random = Random(seed)
        self._seed = seed
        self._stack = AsyncExitStack()
        self._deck: list[Callable[[], Awaitable[None]]] = []

    @property
    def leader(self) -> WorkerProcess:
        return self.operators[-2]

    @property
    def faults(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.an_executor_is_killed,
            self.an_executor_is_frozen,
            self.an_executor_refuses_connections,
            self.redis_is_frozen,
            self.redis_cannot_be_reached,
            self.the_queue_is_away,
            self.the_queue_is_frozen,
            self.a_gateway_answers_for_the_queue,
            self.gateways_answer_for_the_executors,
            self.the_leader_is_killed,
            self.the_leader_is_told_to_stop,
        ]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Two operators, until the end of the block."""
        async with self._stack:
            await self._start_operator("leading")
            await self._start_operator("standing by")
            yield

    async def next(self) -> None:
        """Make the next fault, and return when routing has recovered. Each kind comes once before one comes again."""
        if not self._deck:
            self._deck = self._random.sample(self.faults, len(self.faults))
        fault = self._deck.pop()
        self.done.append(fault.__name__.replace("_", " "))
        await fault()
        await self._rig.progress(10)
        async with asyncio.timeout(60):
            while not await self._rig.link_up("journal", self.leader):
                await asyncio.sleep(0.1)

    def unjournaled(self) -> set[str]:
        """Ids that were handed out around the death of a router, and were never in a journal nor reported."""
        acts = self._rig.ledger.by_id("handed-out").items()
        around = {
            eval_id
            for eval_id, handed in acts
            if any(abs(act.at - death) < DEATH_SECONDS for act in handed for death in self.toll.deaths)
        }
        return around - self._way.written - self._rig.ledger.ids(*TAKEN) - self.toll.lost

    # --- faults

    async def an_executor_is_killed(self) -> None:
        site = self._random.choice(self._rig.executors)
        await site.kill()
        await self._pause(0.5, 3)
        await site.start()

    async def an_executor_is_frozen(self) -> None:
        site = self._random.choice(self._rig.executors)
        site.freeze()
        await self._pause(1, 6)
        site.thaw()

    async def an_executor_refuses_connections(self) -> None:
        site = self._random.choice(self._rig.executors)
        await site.proxy.refuse()
        await self._pause(1, 4)
        await site.proxy.restore()

    async def redis_is_frozen(self) -> None:
        self._rig.redis.pause()
        await self._pause(1, 8)
        self._rig.redis.resume()

    async def redis_cannot_be_reached(self) -> None:
        await self._way.refuse()
        await self._pause(1, 4)
        await self._way.restore()

    async def the_queue_is_away(self) -> None:
        await self._rig.queue.proxy.refuse(finish=True)
        await self._pause(1, 4)
        await self._rig.queue.proxy.restore()

    async def the_queue_is_frozen(self) -> None:
        self._rig.queue.freeze()
        await self._pause(1, 4)
        self._rig.queue.thaw()

    async def a_gateway_answers_for_the_queue(self) -> None:
        gateway = Gateway(self._rig.queue.proxy, f"{self._seed} {len(self.done)}")
        gateway.open()
        await asyncio.sleep(GATEWAY_SECONDS)
        gateway.close()
        await asyncio.sleep(QUIET_SECONDS)  # What is under way behind it ends.
        self.toll.lost |= gateway.popped
        self.toll.told_again |= gateway.reported

    async def gateways_answer_for_the_executors(self) -> None:
        gateways = [Gateway(site.proxy, f"{self._seed} {len(self.done)}") for site in self._rig.executors]
        for gateway in gateways:
            gateway.open()
        await asyncio.sleep(GATEWAY_SECONDS)
        for gateway in gateways:
            gateway.close()

    async def the_leader_is_killed(self) -> None:
        leader = self.leader
        leader.signal(signal.SIGKILL)
        self.toll.deaths.append(time.monotonic())
        await asyncio.to_thread(leader.process.wait)
        await asyncio.sleep(QUIET_SECONDS)
        left = await in_journals(self._rig, f"{self._cluster.namespace}/")
        self.toll.may_run_twice |= {eval_id for eval_id, state in left.items() if state == "executing"}
        self.toll.told_again |= left.keys() & self._rig.ledger.ids(*TAKEN)
        await self._succeed()

    async def the_leader_is_told_to_stop(self) -> None:
        leader = self.leader
        leader.signal(signal.SIGTERM)
        await self._succeed()
        await self._rig.until(lambda: leader.process.poll() is not None, "the leader ends", 90)
        assert leader.process.returncode == 0, leader.log()

    # --- inside

    async def _succeed(self) -> None:
        """The standby leads, and there is another standby."""
        await self._cluster.says(self.operators[-1], "leading")
        await self._start_operator("standing by")

    async def _start_operator(self, state: str) -> None:
        process = await self._stack.enter_async_context(self._cluster.operator())
        await self._cluster.says(process, state)
        self.operators.append(process)

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._random.uniform(least, most))
