"""The budget of memory that the routers of a process share."""

from __future__ import annotations

from math import ceil
from random import Random

import pytest

from queueworker.routing.memory_budget import (
    RESULT_COPIES,
    RUN_BYTES,
    SHARE,
    TASK_COPIES,
    Claim,
    MemoryAccount,
    MemoryBudget,
)
from tests.support.memory import account
from tests.support.model.virtual_time import VirtualLoop

MAX = 9_000_000
TASK = 10_000
PULLED = RUN_BYTES + TASK_COPIES * TASK


class Routers:
    """Accounts of one budget, and how often each was told that there is room."""

    def __init__(self, number: int, max_bytes: int = MAX) -> None:
        self.loop = VirtualLoop()
        self.budget = MemoryBudget(max_bytes)
        self.told = [0] * number
        self.accounts = [MemoryAccount(self.budget, lambda i=i: self._tell(i)) for i in range(number)]  # type: ignore[misc]

    def _tell(self, number: int) -> None:
        self.told[number] += 1

    def pull(self, number: int) -> int:
        """Pull tasks while it may. Returns how many."""
        pulled = 0
        while self.accounts[number].may_pull():
            self.accounts[number].take_task(TASK)
            pulled += 1
        return pulled

    def end(self, number: int, tasks: int) -> None:
        async def give() -> None:
            for _ in range(tasks):
                self.accounts[number].give_task(TASK)

        self.loop.run_until_complete(give())
        self.loop.advance(0.001)


def test_a_router_that_is_alone_uses_nearly_all_of_the_budget() -> None:
    routers = Routers(1)
    routers.pull(0)
    assert 0.85 * MAX < routers.budget.held < MAX


def test_one_that_comes_later_finds_room_and_the_others_make_place_for_it() -> None:
    routers = Routers(2)
    held = routers.pull(0)
    assert routers.pull(1) > 0
    for _ in range(held):
        routers.end(0, 1)
        routers.pull(0)
        routers.pull(1)
    first, second = (one.held for one in routers.accounts)
    assert abs(first - second) < 0.1 * MAX
    assert routers.budget.held < MAX


@pytest.mark.parametrize("number", [2, 10, 20])
def test_however_many_there_are_each_has_its_part_and_the_sum_is_below_the_budget(number: int) -> None:
    routers, rng = Routers(number, number * MAX), Random(1)
    for i in range(number):
        routers.pull(i)
    for _ in range(100):
        for i in rng.sample(range(number), number):
            routers.end(i, ceil(routers.accounts[i].held // PULLED / 10))
            routers.pull(i)
    assert routers.budget.held <= number * (MAX + PULLED)
    assert min(one.held for one in routers.accounts) > 0.5 * MAX


def test_who_holds_nothing_may_pull_though_others_hold_more_than_there_is() -> None:
    routers = Routers(2)
    routers.accounts[0].take_result(MAX)
    assert not routers.accounts[0].may_pull()
    assert routers.pull(1) == 1


def test_who_may_not_pull_is_told_once_there_is_room() -> None:
    routers = Routers(2)
    held = routers.pull(0)
    routers.pull(1)
    routers.end(0, held // 2)
    assert routers.told == [1, 1]
    routers.end(0, 1)
    assert routers.told == [1, 1], "nobody waits"


def test_what_a_router_held_is_free_once_it_has_ended_whatever_ends_later() -> None:
    routers = Routers(2)
    routers.pull(0)
    routers.accounts[0].set_buffered(TASK)

    async def close() -> None:
        routers.accounts[0].close()

    routers.loop.run_until_complete(close())
    assert (routers.budget.held, routers.budget.buffered) == (0, 0)
    routers.accounts[0].give_task(TASK)
    routers.accounts[0].set_buffered(0)
    assert (routers.budget.held, routers.budget.buffered) == (0, 0)


def test_polls_under_way_count_as_large_as_the_tasks_before_them() -> None:
    one = account(MAX)
    one.take_task(TASK)
    one.give_task(TASK)
    one.expect_tasks(3)
    assert one.held == 3 * PULLED
    one.expect_tasks(0)
    assert one.held == 0
    for _ in range(1000):
        one.take_task(0)
        one.give_task(0)
    one.expect_tasks(1)
    assert one.held < 1.02 * RUN_BYTES, "one large task is forgotten in the end"


# --- events and records


def test_events_take_half_of_the_budget_at_most_while_redis_is_away() -> None:
    one = account(MAX)
    one.set_buffered(MAX // 3)
    assert one.excess == 0
    one.set_buffered(MAX)
    one.set_buffered(MAX - one.excess)
    assert one.excess <= SHARE
    assert 0.4 * MAX < one.held < 0.5 * MAX
    assert one.may_pull()


# --- results that are being received

LARGE = MAX // 5 // RESULT_COPIES


def claims(routers: Routers, number: int, times: int) -> list[Claim]:
    return [routers.accounts[number].claim(LARGE, lambda: None) for _ in range(times)]


def release(routers: Routers, *ended: Claim) -> None:
    async def end() -> None:
        for claim in ended:
            claim.release()

    routers.loop.run_until_complete(end())
    routers.loop.advance(0)


def test_large_results_are_received_while_there_is_room_the_oldest_first() -> None:
    routers = Routers(1)
    made = claims(routers, 0, 10)
    assert [claim.granted for claim in made] == [True] * 4 + [False] * 6
    release(routers, made[0])
    assert [claim.granted for claim in made[1:]] == [True] * 4 + [False] * 5
    release(routers, made[9])
    assert not made[8].granted, "one that waited has left, and gave nothing back"
    release(routers, *made[1:9])
    assert routers.budget.held == 0


def test_each_router_may_receive_one_result_whatever_is_held() -> None:
    routers = Routers(2)
    routers.accounts[1].take_result(MAX)
    first, second = claims(routers, 0, 2)
    assert (first.granted, second.granted) == (True, False)
    release(routers, first)
    assert second.granted


def test_tasks_in_flight_that_use_the_whole_budget_do_not_keep_their_results_out() -> None:
    routers = Routers(1)
    routers.accounts[0].take_task(2 * MAX)
    (claim,) = claims(routers, 0, 1)
    assert claim.granted
