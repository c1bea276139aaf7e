"""One router for an object: started, changed, restarted, replaced and stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from queueworker.controller.status import Totals
from queueworker.controller.supervisor import RESTART_SECONDS, RouterSupervisor
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Endpoint, RouterConfig
from queueworker.routing.recovery import Unfinished
from queueworker.routing.snapshot import Phase
from tests.support.fake_router import FakeRouters
from tests.support.stubs import until

if TYPE_CHECKING:
    from tests.support.fake_router import FakeRouter

GROUP = "default/legacy"
POOL = (Endpoint("executor-1", "http://executor-1:8083"),)
LEFT = Unfinished({"task-1": b"entry"})


def config(queue: str = "http://queue:8081", redis: str = "redis://a", concurrency: int = 1) -> RouterConfig:
    spec = QueueWorkerSpec.model_validate({"queue": {"url": queue}, "executors": {"concurrency": concurrency}})
    return RouterConfig(GROUP, spec, redis)


DEFECTS = (RuntimeError("a defect"), asyncio.CancelledError())
"""A library may leave a cancellation behind, which nobody has asked for."""


class Supervised:
    """A supervisor with made-up routers and a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.routers = FakeRouters()
        self.transitions = 0
        self.supervisor = RouterSupervisor(
            *("worker-1", self._on_transition, Totals(completed=10)),
            factory=self.routers,
            clock=lambda: self.now,
        )

    def _on_transition(self) -> None:
        self.transitions += 1

    async def started(self, first: RouterConfig) -> FakeRouter:
        self.supervisor.drive(first, POOL)
        (router,) = self.routers.made
        await until(lambda: router.phase is Phase.ROUTING)
        return router

    async def draining(self, first: RouterConfig, second: RouterConfig) -> FakeRouter:
        """A router that drains, because the second configuration needs another one."""
        router = await self.started(first)
        self.supervisor.drive(second, POOL)
        await until(lambda: router.drained_for)
        return router

    async def successor(self) -> FakeRouter:
        await until(lambda: len(self.routers.made) == 2)
        return self.routers.made[1]


@pytest.fixture
def supervised() -> Supervised:
    return Supervised()


async def test_the_first_configuration_starts_a_router(supervised: Supervised) -> None:
    assert supervised.supervisor.snapshot() is None
    router = await supervised.started(config())
    assert (router.worker_id, router.endpoints, router.inherited) == ("worker-1", POOL, None)
    assert supervised.supervisor.snapshot() is not None


async def test_a_change_that_the_router_can_take_is_applied(supervised: Supervised) -> None:
    router = await supervised.started(config())
    other = (Endpoint("executor-2", "http://executor-2:8083"),)
    supervised.supervisor.drive(config(concurrency=7), other)
    assert (router.config, router.endpoints) == (config(concurrency=7), other)
    assert router.drained_for == []


@pytest.mark.parametrize("changed", [config(queue="http://other:8081"), config(redis="redis://b")])
async def test_another_queue_or_redis_drains_the_router_and_starts_a_successor_with_what_is_left(
    supervised: Supervised, changed: RouterConfig
) -> None:
    router = await supervised.draining(config(), changed)
    assert router.drained_for == [changed]
    snapshot = supervised.supervisor.snapshot()
    assert snapshot is not None
    assert (snapshot.phase, snapshot.queue_url) == (Phase.DRAINING, "http://queue:8081")
    router.leaves = LEFT
    router.end()
    successor = await supervised.successor()
    assert (successor.config, successor.endpoints, successor.inherited) == (changed, POOL, LEFT)
    assert supervised.supervisor.snapshot() == successor.snapshot()


async def test_the_counts_of_a_replaced_router_are_kept(supervised: Supervised) -> None:
    router = await supervised.draining(config(), config(redis="redis://b"))
    router.counters.completed = 5
    router.end()
    await supervised.successor()
    assert supervised.supervisor.totals == Totals(completed=15)


async def test_the_successor_has_the_newest_configuration(supervised: Supervised) -> None:
    router = await supervised.draining(config(), config(queue="http://b"))
    newest = config(queue="http://c", concurrency=3)
    supervised.supervisor.drive(newest, ())
    router.end()
    successor = await supervised.successor()
    assert (successor.config, successor.endpoints) == (newest, ())


async def test_a_draining_router_is_told_when_the_redis_of_its_successor_changes(supervised: Supervised) -> None:
    router = await supervised.draining(config(), config(queue="http://b"))
    supervised.supervisor.drive(config(queue="http://b", concurrency=2), POOL)
    moved = config(queue="http://b", redis="redis://b")
    supervised.supervisor.drive(moved, POOL)
    await until(lambda: len(router.drained_for) == 2)
    assert router.drained_for == [config(queue="http://b"), moved]


async def test_a_draining_router_follows_all_but_the_queue_and_redis(supervised: Supervised) -> None:
    """A lower concurrency, for example, or a drained executor."""
    router = await supervised.draining(config(), config(queue="http://b", redis="redis://b", concurrency=2))
    assert router.config == config(concurrency=2)


async def test_a_draining_router_is_replaced_even_if_the_change_is_taken_back(supervised: Supervised) -> None:
    router = await supervised.draining(config(), config(redis="redis://b"))
    supervised.supervisor.drive(config(), POOL)
    router.end()
    assert (await supervised.successor()).config == config()


@pytest.mark.parametrize("error", DEFECTS)
async def test_a_router_that_ends_by_itself_is_restarted_after_a_pause(
    supervised: Supervised, error: BaseException
) -> None:
    router = await supervised.started(config())
    router.counters.failed = 1
    router.end(error)
    await until(lambda: supervised.supervisor.snapshot() is None)
    supervised.supervisor.drive(config(), POOL)
    assert len(supervised.routers.made) == 1
    supervised.now += RESTART_SECONDS
    supervised.supervisor.drive(config(), POOL)
    assert (await supervised.successor()).inherited is None
    assert supervised.supervisor.totals == Totals(completed=10, failed=1)


@pytest.mark.parametrize("error", DEFECTS)
async def test_a_router_that_breaks_while_it_drains_is_replaced_at_once(
    supervised: Supervised, error: BaseException
) -> None:
    router = await supervised.draining(config(), config(redis="redis://b"))
    router.end(error)
    assert (await supervised.successor()).config == config(redis="redis://b")


@pytest.mark.parametrize("final", [True, False])
async def test_stopping_drains_the_router_and_starts_no_other(supervised: Supervised, final: bool) -> None:
    router = await supervised.started(config())
    await supervised.supervisor.stop(final=final)
    assert router.stopped_with == [final]
    supervised.supervisor.drive(config(redis="redis://b"), POOL)
    assert supervised.routers.made == [router]
    snapshot = supervised.supervisor.snapshot()
    assert snapshot is not None
    assert snapshot.phase is Phase.STOPPED


async def test_stopping_before_there_is_a_router_does_nothing(supervised: Supervised) -> None:
    await supervised.supervisor.stop(final=True)
    assert supervised.routers.made == []


async def test_stopping_does_not_wait_for_the_tasks_of_a_draining_router(supervised: Supervised) -> None:
    router = await supervised.draining(config(), config(redis="redis://b"))
    await asyncio.wait_for(supervised.supervisor.stop(final=True), 5)
    assert router.stopped_with == [True]
    assert supervised.routers.made == [router]


async def test_what_is_left_when_a_replacement_is_cut_short_goes_to_the_journal_of_the_successor(
    supervised: Supervised,
) -> None:
    router = await supervised.draining(config(), config(redis="redis://b"))
    router.leaves = LEFT
    await asyncio.wait_for(supervised.supervisor.stop(final=False), 5)
    successor = await supervised.successor()
    assert (successor.inherited, successor.endpoints) == (LEFT, ())
    assert successor.config.redis_url == "redis://b"
    assert successor.config.spec.routing.drain_seconds == 0
    assert (successor.stopped_with, successor.phase) == ([False], Phase.STOPPED)


async def test_every_change_of_router_is_a_transition(supervised: Supervised) -> None:
    router = await supervised.draining(config(), config(redis="redis://b"))
    seen = supervised.transitions
    router.end()
    await supervised.successor()
    await until(lambda: supervised.transitions > seen)
