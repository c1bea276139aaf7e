"""Executors and slots that the pool takes out of use for a time, on a virtual clock."""

from __future__ import annotations

import pytest

from queueworker.routing.executors.executor import Executor
from tests.support.fake_transport import UNHEALTHY
from tests.support.pools import PoolWorld, check_books


def fail(world: PoolWorld, name: str, times: int = 5) -> None:
    """Tasks that fail by a fault of that executor's own."""
    for _ in range(times):
        permit, executor = world.take_on(name)
        world.do(world.pool.ejections.failed, executor, "answered 500: oops")
        world.do(permit.release)


def give(world: PoolWorld, name: str, *, completed: bool, took: float = 0.01, times: int = 1) -> Executor:
    for _ in range(times):
        permit, executor = world.take_on(name)
        world.do(world.pool.ejections.answered, executor, completed, took)
        world.do(permit.release)
    return executor


def test_an_executor_that_fails_five_tasks_in_a_row_is_ejected_for_ten_seconds_and_says_why() -> None:
    with PoolWorld() as world:
        fail(world, "executor-0", 4)
        assert world.shown().healthy
        fail(world, "executor-0", 1)
        shown = world.shown()
        assert not shown.healthy
        assert shown.reason == "ejected for 10 s after 5 failures in a row: answered 500: oops"
        assert (world.pool.members.healthy_count, world.counters.ejections) == (1, 1)
        world.advance(9.9)
        assert not world.shown().healthy
        changes, frees = world.changes, world.frees
        world.advance(0.2)
        assert world.shown().healthy
        assert world.changes > changes
        assert world.frees > frees, "its slots are offered"


def test_a_result_ends_the_row_of_failures() -> None:
    with PoolWorld() as world:
        fail(world, "executor-0", 4)
        give(world, "executor-0", completed=False)
        fail(world, "executor-0", 1)
        assert world.shown().healthy


def test_an_executor_that_fails_most_tasks_is_ejected_although_it_never_fails_five_in_a_row() -> None:
    with PoolWorld(4) as world:
        fail(world, "executor-0", 4)
        give(world, "executor-0", completed=True)
        fail(world, "executor-0", 2)
        assert world.shown().reason == "ejected for 10 s after 6 failures among the last 10 tasks: answered 500: oops"
        assert world.counters.ejections == 1
        world.advance(10.1)
        give(world, "executor-0", completed=True, times=5)
        fail(world, "executor-0", 1)
        assert world.shown().healthy, "it does better now"


def test_where_most_executors_fail_most_tasks_nobody_is_ejected_for_it() -> None:
    with PoolWorld(4) as world:
        for i in range(4):
            for _ in range(2):
                fail(world, f"executor-{i}", 2)
                give(world, f"executor-{i}", completed=True)
        for i in range(4):
            fail(world, f"executor-{i}", 2)
        assert world.counters.ejections == 2, "the first two, while the others were below"
        assert world.pool.members.healthy_count == 2


def test_one_more_failure_after_the_return_ejects_for_longer() -> None:
    with PoolWorld() as world:
        fail(world, "executor-0")
        world.advance(10.1)
        fail(world, "executor-0", 1)
        assert world.shown().reason.startswith("ejected for 20 s")


def test_a_lone_executor_is_never_ejected() -> None:
    with PoolWorld(1) as world:
        fail(world, "executor-0", 20)
        assert world.shown().healthy
        assert world.counters.ejections == 0


def test_no_more_than_half_are_ejected() -> None:
    with PoolWorld(4) as world:
        for i in range(4):
            fail(world, f"executor-{i}")
        assert world.pool.members.healthy_count == 2
        assert world.counters.ejections == 2


def test_an_ejected_executor_is_readmitted_early_when_others_become_unhealthy() -> None:
    with PoolWorld(4) as world:
        fail(world, "executor-0")
        world.advance(1)
        fail(world, "executor-1")
        world.transport.health["executor-2"] = UNHEALTHY
        world.advance(6)
        assert world.shown("executor-0").healthy, "the one that was ejected first"
        assert not world.shown("executor-1").healthy
        world.transport.health["executor-3"] = UNHEALTHY
        world.advance(6)
        assert world.shown("executor-1").healthy


def test_an_executor_that_leaves_while_it_is_ejected_is_not_counted_any_more() -> None:
    with PoolWorld(2) as world:
        permit, _ = world.take_on("executor-0")
        fail(world, "executor-0")
        world.set_pool([1])
        assert world.shown("executor-0").leaving
        check_books(world.pool)
        world.set_pool([0, 1])
        world.advance(0.1)
        assert world.shown("executor-0").healthy, "it came back as a member like any other"
        world.do(permit.release)
        world.advance(30)
        check_books(world.pool)


def test_an_executor_that_refuses_gets_no_task_for_a_second() -> None:
    with PoolWorld() as world:
        _, executor = world.take_on("executor-0")
        world.do(world.pool.ejections.refused, executor)
        assert world.shown().healthy, "it is busy, not sick"
        assert {world.take()[1].name for _ in range(2)} == {"executor-1"}
        assert not world.pool.can_reserve
        world.advance(0.9)
        world.do(world.pool.ejections.refused, executor)
        world.advance(0.9)
        assert not world.pool.can_reserve, "the second refusal begins a new second"
        frees = world.frees
        world.advance(0.2)
        assert world.pool.can_reserve
        assert world.frees == frees + 1


def test_a_slot_whose_tasks_fail_fast_one_after_the_other_cools_down_until_a_task_is_usually_done() -> None:
    with PoolWorld(4) as world:
        give(world, "executor-1", completed=True, took=21, times=1)  # the average is 2 s now
        give(world, "executor-0", completed=False, times=4)
        assert world.shown().in_flight == 0
        give(world, "executor-0", completed=False)
        assert world.shown().in_flight == 1, "the slot stays in use"
        assert world.counters.ejections == 0
        world.advance(1.9)
        assert world.shown().in_flight == 1
        world.advance(0.2)
        assert world.shown().in_flight == 0
        give(world, "executor-0", completed=True)
        give(world, "executor-0", completed=False)
        assert world.shown().in_flight == 0, "the row is over"


def test_where_tasks_fail_on_most_executors_no_slot_cools_down() -> None:
    with PoolWorld(4) as world:
        for i in range(3):
            give(world, f"executor-{i}", completed=False, times=5)
            world.advance(5)
        give(world, "executor-0", completed=False)
        assert world.in_flight == 0


def test_a_slot_that_cools_down_keeps_an_executor_that_leaves_in_sight_until_it_is_free() -> None:
    with PoolWorld(4) as world:
        give(world, "executor-0", completed=False, times=5)
        world.set_pool([1, 2, 3])
        assert world.shown("executor-0").leaving
        world.advance(2)
        assert [e.name for e in world.pool.snapshot()] == ["executor-1", "executor-2", "executor-3"]


@pytest.mark.parametrize("what", ["an ejection", "a refusal", "failed tasks"])
def test_a_closed_pool_has_no_timers(what: str) -> None:
    with PoolWorld(4) as world:
        match what:
            case "an ejection":
                fail(world, "executor-0")
            case "a refusal":
                permit, executor = world.take()
                world.do(world.pool.ejections.refused, executor)
                world.do(permit.release)
            case _:
                give(world, "executor-0", completed=False, times=5)
        world.run(world.pool.close())
        changes, frees, now = world.changes, world.frees, world.in_flight
        world.advance(60)
        assert (world.changes, world.frees, world.in_flight) == (changes, frees, now)
