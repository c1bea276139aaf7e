"""The real ExecutorPool and strategies with simulated executors in virtual time: reproducible for a seed.

Tasks arrive at random (Poisson) in a queue. Each is pulled when a slot is free, as by the router, and goes to the
executor that the pool chooses. An executor has workers and a queue in front of them, which its slots bound. With more
slots than workers a bad choice costs time, as on a machine with fewer cores than `concurrency`. A task's wait is its
time in the queue and at the executor until a worker starts it.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import orjson

from bench import virtual_time
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Endpoint
from queueworker.routing.counters import Counters
from queueworker.routing.executors.executor_pool import ExecutorPool
from queueworker.routing.http.transport import Answer
from queueworker.routing.in_flight import InFlightTask
from queueworker.routing.limits import Limits
from queueworker.routing.wire.task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.slots import SlotPermit
    from queueworker.routing.queue.client import QueueClient

WARM_UP = 0.1
"""Share of the tasks that arrive before the measurement begins."""


@dataclass(frozen=True)
class Kind:
    """An executor: its workers, its speed (1 is full speed), and its faults. All times are in seconds."""

    workers: int = 1
    speed: float = 1.0
    slots: int = 8
    breaks: float | None = None
    """If set, it answers every task with a 500 after this time."""
    fails: float | None = None
    """If set, it answers every task with a result that says `failed` after this time."""
    away: tuple[float, float] = (0.0, 0.0)
    """It is unhealthy between these times, but fails no task."""


@dataclass
class Machine:
    kind: Kind
    name: str
    free: asyncio.Semaphore
    given: int = 0
    """Number of tasks that it got after the warm-up."""
    times: list[float] = field(default_factory=list)
    """Times at which it got a task."""


@dataclass
class Run:
    """The result of a simulation. Waits are in seconds, sorted."""

    waits: list[float]
    seconds: float
    """Time from the first measured task to the end of the last one."""
    machines: list[Machine]
    broken: int
    """Number of tasks that were answered with a 500."""

    @property
    def throughput(self) -> float:
        return len(self.waits) / self.seconds

    @property
    def mean(self) -> float:
        return sum(self.waits) / len(self.waits)

    def wait(self, share: float) -> float:
        return self.waits[min(int(share * len(self.waits)), len(self.waits) - 1)]

    def share(self, *machines: int) -> float:
        """Share of the tasks that these executors got, by index."""
        return sum(self.machines[i].given for i in machines) / sum(m.given for m in self.machines)


class Healths:
    """A transport that answers `/health` and `/capacity` of the simulated executors."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds

    async def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Answer:
        host, _, path = url.removeprefix("http://executor-").partition("/")
        kind = self._kinds[int(host)]
        if path == "capacity":
            return Answer(200, orjson.dumps({"max_concurrent": kind.slots}))
        begin, end = kind.away
        return Answer(503 if begin <= asyncio.get_running_loop().time() < end else 200, b"{}")

    async def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Answer:
        raise NotImplementedError

    async def close(self) -> None: ...


class Simulation:
    def __init__(
        self, kinds: Sequence[Kind], strategy: str, *, load: float, tasks: int, seed: int, **executors: object
    ) -> None:
        """`load` is a share of the total capacity, without the executors that break or fail every task."""
        self._kinds = kinds
        self._rng = random.Random(seed)
        able = sum(k.workers * k.speed for k in kinds if k.breaks is None and k.fails is None)
        self._rate = load * able
        self._tasks = tasks
        most = max(kind.slots for kind in kinds)
        self._spec = QueueWorkerSpec.model_validate(
            {"executors": {"concurrency": most, "healthCheck": {"maxAgeSeconds": 3600, "periodSeconds": 1}} | executors}
            | {"routing": {"strategy": strategy, "stickyKey": "EvalID"}}
        )
        self._queue: list[tuple[float, float, int]] = []
        self._head = 0
        self._waits: list[float] = []
        self._broken = 0
        self._left = tasks

    def run(self) -> Run:
        return virtual_time.run(self._run())

    async def _run(self) -> Run:
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._done = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        self._machines = [Machine(k, f"executor-{i}", asyncio.Semaphore(k.workers)) for i, k in enumerate(self._kinds)]
        self._by_name = {m.name: m for m in self._machines}
        self._pool = ExecutorPool(
            self._spec,
            Healths(self._kinds),
            rng=random.Random(self._rng.random()),
            clock=loop.time,
            on_free=self._pull,
            on_change=lambda: None,
            counters=Counters(),
            limits=Limits(),
        )
        self._pool.set_endpoints([Endpoint(m.name, f"http://{m.name}") for m in self._machines])
        await asyncio.sleep(1)
        counted_from = loop.time()
        for i in range(self._tasks):
            await asyncio.sleep(self._rng.expovariate(self._rate))
            if i == int(WARM_UP * self._tasks):
                counted_from = loop.time()
            self._queue.append((loop.time(), self._rng.expovariate(1.0), i))
            self._pull()
        await self._done.wait()
        await self._pool.close()
        return Run(sorted(self._waits), loop.time() - counted_from, self._machines, self._broken)

    def _pull(self) -> None:
        while self._head < len(self._queue) and self._pool.can_reserve:
            run = asyncio.create_task(self._run_task(self._pool.reserve(), *self._queue[self._head]))
            self._head += 1
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)

    async def _run_task(self, permit: SlotPermit, came: float, work: float, number: int) -> None:
        task = Task(str(number), "", None, "", "", b"null")
        flight = InFlightTask(task, cast("QueueClient", None), came)  # there is no queue to report to
        counts = number >= WARM_UP * self._tasks
        try:
            executor = await self._pool.acquire(permit, flight, lambda: None)
            machine = self._by_name[executor.name]
            machine.times.append(self._now())
            machine.given += counts
            started = await self._execute(executor, machine.kind, machine, work)
        finally:
            permit.release()
        if counts:
            self._waits.append(started - came)
        self._left -= 1
        if not self._left:
            self._done.set()

    async def _execute(self, executor: Executor, kind: Kind, machine: Machine, work: float) -> float:
        """Run a task, and tell the pool its end as the router does. Returns the time at which a worker started it."""
        given = self._now()
        async with machine.free:
            started = self._now()
            if kind.breaks is not None:
                await asyncio.sleep(kind.breaks)
                self._broken += 1
                self._pool.ejections.failed(executor, "answered 500: oops")
            else:
                await asyncio.sleep(work / kind.speed if kind.fails is None else kind.fails)
                self._pool.ejections.answered(executor, kind.fails is None, self._now() - given)
        return started
