"""A real ExecutorPool on a virtual clock, among executors of a fake transport; and the check of a pool's books."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, Self, cast

from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Endpoint
from queueworker.routing.counters import Counters
from queueworker.routing.executors.executor_pool import ExecutorPool
from queueworker.routing.in_flight import InFlightTask
from queueworker.routing.limits import Limits
from queueworker.routing.wire.task import Task
from tests.support.fake_transport import FakeTransport
from tests.support.model.virtual_time import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.slots import SlotPermit
    from queueworker.routing.queue.client import QueueClient
    from queueworker.routing.snapshot import ExecutorSnapshot

STEADY: dict[str, Any] = {"concurrency": 2, "slowStartSeconds": 0, "healthCheck": {"maxAgeSeconds": 3600}}
"""No warm-up, and no health check that a task waits for."""


def spec(executors: dict[str, Any] | None = None, **routing: Any) -> QueueWorkerSpec:
    return QueueWorkerSpec.model_validate({"executors": STEADY | (executors or {}), "routing": routing})


def endpoints(which: int | Iterable[int]) -> list[Endpoint]:
    numbers = range(which) if isinstance(which, int) else which
    return [Endpoint(f"executor-{i}", f"http://executor-{i}") for i in numbers]


def flight(eval_id: str = "a", pulled_at: float = 0.0) -> InFlightTask:
    task = Task(eval_id, f"code of {eval_id}", None, "python", "docker", b'{"eval_id":"a"}')
    return InFlightTask(task, cast("QueueClient", FakeQueue()), pulled_at)


class FakeQueue:
    """Only its URL is looked at."""

    url = "http://queue"


class PoolWorld:
    """`with PoolWorld() as world`: the pool has `count` executors, all healthy, after the first moment."""

    def __init__(self, count: int = 2, executors: dict[str, Any] | None = None, **routing: Any) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.transport = FakeTransport()
        self.counters = Counters()
        self.frees = 0
        self.changes = 0
        self.waits: list[str] = []
        """The tasks whose `on_wait` was called."""
        self.pool = ExecutorPool(
            spec(executors, **routing),
            self.transport,
            rng=Random(1),
            clock=self.loop.time,
            on_free=self._on_free,
            on_change=self._on_change,
            counters=self.counters,
            limits=Limits(),
        )
        self._count = count

    def _on_free(self) -> None:
        self.frees += 1

    def _on_change(self) -> None:
        self.changes += 1

    def __enter__(self) -> Self:
        self.set_pool(self._count)
        self.advance(0.01)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                check_books(self.pool)
                self.run(self.pool.close())
                assert not self.loop.broken, self.loop.broken
        finally:
            self.loop.cancel_all()
            asyncio.set_event_loop(None)
            self.loop.close()

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def do(self, *calls: Any) -> Any:
        """Call a function with these arguments inside the loop."""
        function, *arguments = calls

        async def call() -> Any:
            return function(*arguments)

        return self.run(call())

    def set_pool(self, which: int | Iterable[int]) -> None:
        self.do(self.pool.set_endpoints, endpoints(which))

    def start(
        self, permit: SlotPermit, eval_id: str = "a", *, failed_at: tuple[str, ...] = (), attempt: int = 1
    ) -> asyncio.Task[Executor]:
        """Begin to acquire a slot for a task."""
        task = flight(eval_id)
        task.failed_at, task.attempt = failed_at, attempt

        async def acquire() -> Executor:
            return await self.pool.acquire(permit, task, lambda: self.waits.append(eval_id))

        acquiring = self.loop.create_task(acquire())
        self.advance(0)
        return acquiring

    def take(self, eval_id: str = "a") -> tuple[SlotPermit, Executor]:
        """A slot that is free now."""
        permit = self.pool.reserve()
        return permit, self.start(permit, eval_id).result()

    def take_on(self, name: str) -> tuple[SlotPermit, Executor]:
        """A slot of that executor, by drawing until it comes up."""
        refused = []
        while True:
            permit, executor = self.take()
            if executor.name == name:
                break
            refused.append(permit)
        for other in refused:
            self.do(other.release)
        return permit, executor

    def shown(self, name: str = "executor-0") -> ExecutorSnapshot:
        return next(e for e in self.pool.snapshot() if e.name == name)

    @property
    def in_flight(self) -> int:
        return sum(e.in_flight for e in self.pool.snapshot())


def check_books(pool: ExecutorPool, *, reserved: int | None = None) -> None:
    """What must hold of a pool's own books at any moment. `reserved`: how many permits hold a reservation."""
    slots, everyone = pool._slots, pool.members.all()
    assert sorted(e.name for e in everyone if e.available) == sorted(e.name for e in slots.available)
    assert all(slots.available[e.available_index] is e for e in slots.available)
    assert slots.free == sum(e.free for e in everyone) == sum(e.capacity - e.in_flight for e in slots.available)
    assert all(e.free > 0 for e in slots.available)
    assert pool.members.healthy_count == sum(e.healthy for e in pool.members.present.values())
    assert slots.reserved >= 0
    assert reserved is None or slots.reserved == reserved
    assert not any(future.done() for future in (*slots.waiting, *slots.avoiding))
    claimed = slots.reserved + len(slots.waiting)
    assert pool.can_reserve is (slots.free > claimed and len(slots.avoiding) < max(pool.members.healthy_count, 1))
