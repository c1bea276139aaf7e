"""How a returning executor comes to its slots."""

from __future__ import annotations

import pytest

from queueworker.routing.executors import slow_start
from tests.support.fake_transport import UNHEALTHY
from tests.support.pools import PoolWorld, spec

SLOW: dict[str, object] = {"concurrency": 10, "slowStartSeconds": 20, "healthCheck": {"periodSeconds": 1}}


@pytest.mark.parametrize(
    ("away", "pool_up", "window", "begins"),
    [
        (float("inf"), 60, 10, True),
        (1, 60, 10, True),
        (0.5, 60, 10, False),
        (60, 9, 10, False),
        (60, 60, 0, False),
    ],
)
def test_a_warm_up_begins_after_an_absence_in_a_pool_that_is_warm(
    away: float, pool_up: float, window: float, begins: bool
) -> None:
    assert slow_start.begins(away, pool_up, window) is begins


@pytest.mark.parametrize(("elapsed", "slots"), [(0, 1), (1, 1), (2.5, 3), (5, 5), (9.9, 9), (10, 10), (99, 10)])
def test_slots_grow_linearly_from_one_to_all(elapsed: float, slots: int) -> None:
    assert slow_start.usable(10, elapsed, 10) == slots


def capacities(world: PoolWorld) -> list[int]:
    return [e.capacity for e in world.pool.snapshot()]


def test_executors_that_start_together_have_all_their_slots() -> None:
    with PoolWorld(3, SLOW) as world:
        assert capacities(world) == [10] * 3


def test_an_executor_that_joins_a_warm_pool_gets_more_slots_every_step() -> None:
    with PoolWorld(2, SLOW) as world:
        world.advance(30)
        world.set_pool(3)
        world.advance(0.1)
        seen = []
        for _ in range(5):
            seen.append(world.shown("executor-2").capacity)
            world.advance(5)
        assert seen[:4] == [1, 3, 5, 7]
        assert capacities(world) == [10] * 3


def test_slots_that_an_executor_came_to_are_offered() -> None:
    with PoolWorld(2, SLOW) as world:
        world.advance(30)
        world.set_pool(4)
        world.advance(0.1)
        frees = world.frees
        world.advance(2)
        assert world.frees == frees + 4, "once a step of half a second, however many warm up"


def test_a_moments_absence_needs_no_warm_up_and_a_longer_one_does() -> None:
    with PoolWorld(2, SLOW) as world:
        world.advance(30)
        permit, executor = world.take_on("executor-0")
        world.do(permit.release)
        world.do(world.pool.broke, executor, "broke the connection")
        world.advance(0.1)
        assert world.shown().healthy
        assert world.shown().capacity == 10
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(5)
        del world.transport.health["executor-0"]
        world.advance(1.2)
        assert world.shown().healthy
        assert world.shown().capacity < 3


def test_where_no_warm_executor_is_left_those_that_warm_up_get_all_their_slots() -> None:
    with PoolWorld(1, SLOW) as world:
        world.advance(30)
        world.set_pool(2)
        world.advance(0.1)
        assert capacities(world) == [10, 1]
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(2)
        assert world.shown("executor-1").capacity == 10


def test_an_executor_that_warms_up_keeps_the_slots_that_are_in_use() -> None:
    with PoolWorld(2, SLOW) as world:
        world.advance(30)
        held = [world.take_on("executor-0") for _ in range(6)]
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(3)
        del world.transport.health["executor-0"]
        world.advance(1.2)
        assert world.shown().healthy
        assert world.shown().capacity == 6
        for permit, _ in held:
            world.do(permit.release)


def test_a_changed_window_applies_at_once() -> None:
    with PoolWorld(2, SLOW) as world:
        world.advance(30)
        world.set_pool(3)
        world.advance(0.1)
        world.do(world.pool.apply, spec({**SLOW, "slowStartSeconds": 0}))
        assert capacities(world) == [10] * 3


def test_a_closed_pool_warms_nothing_up() -> None:
    with PoolWorld(2, SLOW) as world:
        world.advance(30)
        world.set_pool(3)
        world.advance(0.1)
        world.run(world.pool.close())
        frees = world.frees
        world.advance(30)
        assert world.frees == frees
