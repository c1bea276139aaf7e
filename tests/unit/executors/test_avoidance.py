"""A task goes to another executor than those that failed it, while there is one, on a virtual clock."""

from __future__ import annotations

import pytest

from queueworker.resource.spec import Strategy
from tests.support.fake_transport import UNHEALTHY
from tests.support.pools import PoolWorld

ONE_EACH = {"concurrency": 1}
FAILED = ("executor-0",)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("attempt", [1, 2])
def test_another_executor_that_is_free_is_chosen_whatever_the_strategy_says(strategy: str, attempt: int) -> None:
    with PoolWorld(3, strategy=strategy) as world:
        for i in range(20):
            permit = world.pool.reserve()
            acquiring = world.start(permit, f"t{i}", failed_at=FAILED, attempt=attempt)
            assert acquiring.result().name != "executor-0"
            world.do(permit.release)
        assert world.waits == []


def test_a_task_that_ran_nowhere_waits_for_another_executor_as_long_as_one_is_healthy() -> None:
    with PoolWorld(2, ONE_EACH) as world:
        busy, _ = world.take_on("executor-1")
        permit = world.pool.reserve()
        acquiring = world.start(permit, failed_at=FAILED)
        assert world.waits == ["a"]
        world.advance(1000)
        assert not acquiring.done()
        world.do(busy.release)
        world.advance(0)
        assert acquiring.result().name == "executor-1"
        world.do(permit.release)


def test_it_goes_back_when_no_other_one_is_healthy_any_more() -> None:
    with PoolWorld(2, ONE_EACH) as world:
        world.take_on("executor-1")
        permit = world.pool.reserve()
        acquiring = world.start(permit, failed_at=FAILED)
        world.transport.health["executor-1"] = UNHEALTHY
        world.advance(7)
        assert acquiring.result().name == "executor-0"
        world.do(permit.release)


def test_a_later_attempt_waits_ten_seconds_for_another_executor() -> None:
    with PoolWorld(2, ONE_EACH) as world:
        world.take_on("executor-1")
        permit = world.pool.reserve()
        acquiring = world.start(permit, failed_at=FAILED, attempt=2)
        world.advance(9.9)
        assert not acquiring.done()
        world.advance(0.2)
        assert acquiring.result().name == "executor-0"
        world.do(permit.release)


def test_a_lone_executor_gets_its_tasks_again_at_once() -> None:
    with PoolWorld(1, ONE_EACH) as world:
        permit = world.pool.reserve()
        assert world.start(permit, failed_at=FAILED).result().name == "executor-0"
        assert world.waits == []
        world.do(permit.release)


def test_a_task_that_avoids_an_executor_leaves_its_slots_to_others_up_to_one_for_each_healthy_executor() -> None:
    with PoolWorld(2, ONE_EACH) as world:
        busy, _ = world.take_on("executor-1")
        permits = []
        for i in range(2):
            assert world.pool.can_reserve
            permits.append(world.pool.reserve())
            world.start(permits[-1], f"avoids {i}", failed_at=FAILED)
        assert not world.pool.can_reserve, "enough of them wait"
        frees = world.frees
        world.do(busy.release)
        world.advance(0)
        assert world.in_flight == 1, "the first of them has it"
        assert world.pool.can_reserve, "and the slot of executor-0 is for others"
        assert world.frees > frees
        for permit in permits:
            world.do(permit.release)
            world.advance(0)


def test_the_next_slot_of_another_executor_goes_to_the_task_that_waits_for_it() -> None:
    with PoolWorld(2, ONE_EACH) as world:
        busy, _ = world.take_on("executor-1")
        also_busy, _ = world.take_on("executor-0")
        first, second = world.pool.reserve(), world.pool.reserve()
        avoids = world.start(first, "avoids", failed_at=FAILED)
        any_one = world.start(second, "any")
        world.do(also_busy.release)
        world.advance(0)
        assert any_one.result().name == "executor-0"
        assert not avoids.done()
        world.do(busy.release)
        world.advance(0)
        assert avoids.result().name == "executor-1"
        for permit in (first, second):
            world.do(permit.release)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    with PoolWorld(2, ONE_EACH) as world:
        busy, _ = world.take_on("executor-1")
        permit = world.pool.reserve()
        acquiring = world.start(permit, failed_at=FAILED)
        acquiring.cancel()
        world.do(busy.release)
        world.advance(0)
        assert acquiring.cancelled()
        assert world.in_flight == 0
