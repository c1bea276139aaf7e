"""Who is in the pool, what it shows, and which tasks wait for a slot, on a virtual clock."""

from __future__ import annotations

import asyncio

import pytest

from queueworker.routing.executors.slots import NoExecutors
from queueworker.routing.http.transport import NotSent
from tests.support.fake_transport import UNHEALTHY
from tests.support.pools import PoolWorld, check_books, flight, spec

HOLD = {"whenUnavailable": "Hold"}
FAIL = {"whenUnavailable": "Fail", "unavailableGraceSeconds": 10}


def test_a_pool_shows_its_executors_in_order() -> None:
    with PoolWorld(3) as world:
        shown = world.pool.snapshot()
        assert [(e.name, e.url, e.healthy, e.in_flight, e.capacity, e.leaving) for e in shown] == [
            (f"executor-{i}", f"http://executor-{i}", True, 0, 2, False) for i in range(3)
        ]
        assert all(e.last_check for e in shown)
        assert world.pool.members.healthy_count == 3


def test_an_executor_that_was_never_checked_says_so() -> None:
    with PoolWorld(0) as world:
        world.set_pool(1)
        assert (world.shown().healthy, world.shown().reason) == (False, "not checked yet")


def test_as_many_slots_can_be_reserved_as_are_free() -> None:
    with PoolWorld(2) as world:
        permits = []
        while world.pool.can_reserve:
            permits.append(world.pool.reserve())
        assert len(permits) == 4
        for permit in permits:
            permit.release()
        assert world.pool.can_reserve
        assert world.frees == 2, "one each that became healthy; a reservation that is given up tells nobody"


def test_a_task_that_finds_no_slot_waits_for_the_next_one_and_comes_before_new_pulls() -> None:
    with PoolWorld(1) as world:
        held = [world.take(f"t{i}")[0] for i in range(2)]
        permit = world.pool.reserve()
        acquiring = world.start(permit, "waits")
        assert world.waits == ["waits"]
        assert not acquiring.done()
        world.do(held[0].release)
        world.advance(0)
        assert acquiring.result().name == "executor-0"
        assert not world.pool.can_reserve
        for other in (held[1], permit):
            world.do(other.release)


def test_tasks_get_slots_in_the_order_in_which_they_began_to_wait() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        permit, _ = world.take()
        order: list[str] = []

        async def waits(name: str) -> None:
            mine = world.pool.reserve()
            try:
                await world.pool.acquire(mine, flight(name), lambda: None)
                order.append(name)
            finally:
                mine.release()

        tasks = [world.loop.create_task(waits(name)) for name in "abc"]
        world.advance(0)
        world.do(permit.release)
        world.advance(0.1)
        assert order == ["a", "b", "c"]
        assert all(task.done() for task in tasks)


def test_more_slots_that_come_free_at_once_wake_more_tasks_and_then_tell_the_owner() -> None:
    with PoolWorld(1, {"concurrency": 3}) as world:
        held = [world.take(f"t{i}")[0] for i in range(3)]
        permits = [world.pool.reserve() for _ in range(2)]
        acquiring = [world.start(permit, f"w{i}") for i, permit in enumerate(permits)]
        world.do(world.pool.apply, spec({"concurrency": 6}))
        frees = world.frees
        world.advance(0.1)
        assert all(task.done() for task in acquiring)
        assert world.frees == frees + 1
        assert world.pool.can_reserve, "one slot is left"
        for permit in (*held, *permits):
            world.do(permit.release)


def test_fewer_slots_let_what_runs_end_and_give_nothing_new() -> None:
    with PoolWorld(1, {"concurrency": 4}) as world:
        held = [world.take(f"t{i}")[0] for i in range(3)]
        world.do(world.pool.apply, spec({"concurrency": 1}))
        assert (world.shown().capacity, world.shown().in_flight) == (1, 3)
        for permit in held[:2]:
            world.do(permit.release)
            assert not world.pool.can_reserve
        world.do(held[2].release)
        assert world.pool.can_reserve


def test_a_changed_strategy_applies_from_the_next_choice_on() -> None:
    with PoolWorld(3, {"concurrency": 9}, strategy="Random") as world:
        world.do(world.pool.apply, spec({"concurrency": 9}, strategy="RoundRobin"))
        taken = [world.take(f"t{i}") for i in range(6)]
        assert [executor.name[-1] for _, executor in taken] == list("012012")
        for permit, _ in taken:
            world.do(permit.release)


def test_an_executor_that_leaves_gets_nothing_new_and_is_shown_until_it_is_done() -> None:
    with PoolWorld(2) as world:
        permit, executor = world.take_on("executor-0")
        world.set_pool([1])
        assert world.shown().leaving
        assert not world.pool.fresh(executor)
        assert world.pool.members.healthy_count == 1
        taken = [world.take(f"t{i}") for i in range(2)]
        assert {e.name for _, e in taken} == {"executor-1"}
        assert not world.pool.can_reserve
        frees = world.frees
        world.do(permit.release)
        assert world.frees == frees, "it is not a slot of the pool any more"
        assert [e.name for e in world.pool.snapshot()] == ["executor-1"]
        for other, _ in taken:
            world.do(other.release)


def test_an_executor_that_comes_back_while_it_leaves_keeps_its_count() -> None:
    with PoolWorld(2) as world:
        permit, executor = world.take_on("executor-0")
        world.set_pool([1])
        world.set_pool([0, 1])
        world.advance(0.1)
        assert (world.shown().in_flight, world.shown().leaving) == (1, False)
        _, again = world.take_on("executor-0")
        assert again is executor
        world.do(permit.release)
        assert world.shown().in_flight == 1


def test_a_task_that_waits_gets_a_free_slot_of_an_executor_that_comes_back_while_it_leaves() -> None:
    with PoolWorld(1) as world:
        held, _ = world.take()
        world.set_pool([])
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        world.set_pool(1)
        world.advance(0)
        assert acquiring.done()
        for other in (held, permit):
            world.do(other.release)


def test_an_executor_that_comes_back_after_it_was_done_is_a_new_one() -> None:
    with PoolWorld(2) as world:
        permit, executor = world.take_on("executor-0")
        world.set_pool([1])
        world.do(permit.release)
        world.set_pool([0, 1])
        assert world.shown().reason == "not checked yet"
        world.advance(0.1)
        assert world.take_on("executor-0")[1] is not executor


def test_the_same_endpoints_in_another_order_change_nothing() -> None:
    with PoolWorld(3) as world:
        changes = world.changes
        world.set_pool([2, 0, 1])
        assert world.changes == changes
        world.set_pool([2, 0])
        assert world.changes == changes + 1
        assert [e.name for e in world.pool.snapshot()] == ["executor-2", "executor-0"]


def test_a_broken_connection_makes_an_executor_unhealthy_until_the_check_that_it_starts_succeeds() -> None:
    with PoolWorld(2) as world:
        permit, executor = world.take_on("executor-0")
        world.transport.health_seconds = 0.5
        world.do(world.pool.broke, executor, "broke the connection at http://executor-0")
        assert world.shown().reason == "broke the connection at http://executor-0"
        assert not world.pool.fresh(executor)
        world.do(permit.release)
        world.advance(0.6)
        assert world.shown().healthy
        assert world.counters.ejections == 0


def test_an_executor_whose_connection_broke_after_it_left_is_not_checked_any_more() -> None:
    """As when a pod is deleted while it runs a task: it was probed for ever, even after the pool was closed."""
    with PoolWorld(2) as world:
        permit, executor = world.take_on("executor-0")
        world.set_pool([1])
        world.do(world.pool.broke, executor, "broke the connection")
        world.do(permit.release)
        checks = world.transport.checks("executor-0")
        world.advance(60)
        assert world.transport.checks("executor-0") == checks


def test_a_task_without_a_healthy_executor_fails_after_the_grace() -> None:
    with PoolWorld(0, FAIL) as world:
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        world.advance(9.9)
        assert not acquiring.done()
        world.advance(0.2)
        assert isinstance(acquiring.exception(), NoExecutors)
        assert str(acquiring.exception()) == "No healthy executors available"
        check_books(world.pool, reserved=0)


def test_with_hold_a_task_waits_for_a_healthy_executor_however_long_it_takes() -> None:
    with PoolWorld(0, HOLD) as world:
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        world.advance(10_000)
        assert not acquiring.done()
        world.set_pool(1)
        world.advance(0.1)
        assert acquiring.result().name == "executor-0"


def test_a_task_waits_on_while_executors_are_healthy_and_busy() -> None:
    with PoolWorld(1, FAIL) as world:
        held = [world.take(f"t{i}")[0] for i in range(2)]
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        world.advance(1000)
        assert not acquiring.done()
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(30)
        assert isinstance(acquiring.exception(), NoExecutors)
        for other in held:
            world.do(other.release)


def test_with_no_grace_a_task_still_waits_for_one_check_of_an_executor_that_is_away() -> None:
    with PoolWorld(1, {"whenUnavailable": "Fail", "unavailableGraceSeconds": 0}) as world:
        held = [world.take(f"t{i}") for i in range(2)]
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        executor = held[0][1]
        world.advance(0.2)
        world.do(world.pool.broke, executor, "broke the connection")
        world.advance(1)
        assert not acquiring.done(), "it was back at once"
        world.transport.health["executor-0"] = UNHEALTHY
        world.do(world.pool.broke, executor, "broke the connection")
        world.advance(1.1)
        assert isinstance(acquiring.exception(), NoExecutors)
        for other, _ in held:
            world.do(other.release)


def test_an_executor_that_failed_its_check_while_a_task_waited_for_it_is_not_taken() -> None:
    with PoolWorld(2, {"healthCheck": {"maxAgeSeconds": 1, "periodSeconds": 100}}) as world:
        world.advance(3)
        world.transport.health["executor-0"] = UNHEALTHY
        permits = [world.pool.reserve() for _ in range(2)]
        acquiring = [world.start(permit, f"t{i}") for i, permit in enumerate(permits)]
        world.advance(0.1)
        assert [task.result().name for task in acquiring] == ["executor-1"] * 2
        assert world.shown().in_flight == 0
        for permit in permits:
            world.do(permit.release)


def test_a_task_that_is_cancelled_after_it_was_woken_passes_the_slot_on() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        held, _ = world.take()
        permits = [world.pool.reserve() for _ in range(2)]
        first, second = (world.start(permit, f"t{i}") for i, permit in enumerate(permits))

        async def wake_and_cancel() -> None:
            held.release()
            first.cancel()
            await asyncio.wait([first])

        world.run(wake_and_cancel())
        world.advance(0)
        assert first.cancelled()
        assert second.result().name == "executor-0"
        world.do(permits[1].release)


def test_a_cancelled_task_that_was_woken_tells_the_owner_when_nobody_else_waits() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        held, _ = world.take()
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        frees = world.frees

        async def wake_and_cancel() -> None:
            held.release()
            acquiring.cancel()
            await asyncio.wait([acquiring])

        world.run(wake_and_cancel())
        assert world.frees == frees + 1
        assert world.pool.can_reserve


@pytest.mark.parametrize("kinds", [[None, False], [True, False], [False, False]])
def test_a_pool_knows_whether_all_its_executors_are_synchronous(kinds: list[bool | None]) -> None:
    with PoolWorld(2) as world:
        for i, kind in enumerate(kinds):
            permit, executor = world.take_on(f"executor-{i}")
            executor.completes_async = kind
            world.do(permit.release)
        assert world.pool.all_synchronous is (kinds == [False, False])


def test_a_task_that_waited_for_a_busy_executor_has_the_whole_grace_when_it_goes_away() -> None:
    with PoolWorld(1, FAIL) as world:
        held = [world.take(f"t{i}") for i in range(2)]
        acquiring = world.start(world.pool.reserve())
        world.advance(9.5)
        world.transport.health["executor-0"] = UNHEALTHY
        world.do(world.pool.broke, held[0][1], "broke the connection")
        world.advance(1)
        assert not acquiring.done(), "it was away for one second of ten"
        world.advance(10)
        assert isinstance(acquiring.exception(), NoExecutors)
        for permit, _ in held:
            world.do(permit.release)


def test_a_capacity_that_turns_out_larger_wakes_those_who_wait() -> None:
    with PoolWorld(0, HOLD | {"concurrency": None}) as world:
        world.transport.capacity["executor-0"] = NotSent("no answer")
        world.set_pool(1)
        world.advance(1)
        held, _ = world.take()
        acquiring = world.start(world.pool.reserve())
        world.transport.capacity["executor-0"] = 4
        world.advance(60)
        assert world.shown().capacity == 4
        assert acquiring.done()
        world.do(held.release)
