"""The course of the show, on a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.show.acts import (
    ACT_SECONDS,
    ACTS,
    EXECUTOR,
    POOL,
    QUEUE,
    READY_SECONDS,
    REDIS,
    ROUTER,
    Act,
    Command,
    Kind,
)
from demo.show.facts import Executor, Facts, Router, Stored
from demo.show.show import CALM_SECONDS, START_SECONDS, Outcome, Show

EXECUTORS = tuple(Executor(f"executor-{n}", healthy=True, in_flight=n % 3, capacity=2) for n in (1, 2, 3))
ROUTING = Router("http://router", EXECUTORS, queue=True, redis=True, buffered=0, in_flight=3, recovered=0)
WELL = Facts(0.0, ROUTING, queue_answers=True, submitted=10, handed_out=9, reported=8, stored=Stored(7, 1, 1))
DOWN = replace(WELL, router=None)


def sick(number: int) -> Facts:
    executors = tuple(replace(e, healthy=e.number != number) for e in EXECUTORS)
    return replace(WELL, router=replace(ROUTING, executors=executors))


def pool(count: int) -> Facts:
    executors = tuple(Executor(f"executor-{n}", healthy=True, in_flight=0, capacity=2) for n in range(1, count + 1))
    return replace(WELL, router=replace(ROUTING, executors=executors))


class Course:
    """A show, with the time and everything that it wanted to be done."""

    def __init__(self, show: Show) -> None:
        self.show = show
        self.now = 100.0
        self.done: list[Command] = []

    def see(self, facts: Facts, after: float = 0.25) -> list[Command]:
        self.now += after
        commands = self.show.step(replace(facts, at=self.now))
        self.done += commands
        return commands

    def begin(self) -> list[Command]:
        """Let the next act of the programme begin."""
        self.see(WELL)
        return self.see(WELL, CALM_SECONDS)

    def press(self, key: str) -> None:
        self.show.press(key, replace(WELL, at=self.now))


def course(*acts: Act, last_start: float = float("inf")) -> Course:
    return Course(Show(acts, last_start))


def test_an_act_begins_after_a_moment_of_calm() -> None:
    it = course(EXECUTOR)
    assert it.see(WELL) == []
    assert it.see(WELL, CALM_SECONDS / 2) == []
    assert it.see(WELL, CALM_SECONDS / 2) == [Command(Kind.KILL_EXECUTOR, 2)]


def test_no_act_begins_while_something_is_broken() -> None:
    it = course(EXECUTOR)
    it.see(WELL)
    assert it.see(sick(1), CALM_SECONDS) == []
    assert it.see(WELL, CALM_SECONDS) == []
    assert it.see(WELL, CALM_SECONDS) != []


def test_an_act_is_noticed_then_mended_then_healed() -> None:
    it = course(EXECUTOR)
    it.begin()
    assert it.see(WELL, 1) == []
    assert it.see(sick(2), 1) == []
    assert it.see(sick(2), EXECUTOR.steps[0].hold) == [Command(Kind.START_EXECUTORS)]
    it.see(sick(2), 1)
    it.see(WELL, 1)
    (performance,) = it.show.performances
    assert performance.outcome is Outcome.HEALED
    assert performance.noticed == pytest.approx(2)
    assert performance.ended == pytest.approx(4 + EXECUTOR.steps[0].hold)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_an_act_that_does_not_heal_is_brought_back_and_given_up(act: Act) -> None:
    it = course(act)
    it.begin()
    commands = it.see(WELL, ACT_SECONDS)
    assert [c.kind for c in commands] == [step.command(WELL).kind for step in act.steps[1:]]
    assert it.show.performances[0].outcome is Outcome.GIVEN_UP


def test_a_killed_router_counts_as_healed_when_its_journal_was_taken_over() -> None:
    it = course(ROUTER)
    it.begin()
    it.see(DOWN, 1)
    assert it.see(DOWN, ROUTER.steps[0].hold) == [Command(Kind.START_ROUTER)]
    it.see(WELL, 1)
    assert it.show.now_on is not None
    it.see(replace(WELL, router=replace(ROUTING, recovered=6)), 1)
    assert it.show.performances[0].outcome is Outcome.HEALED
    assert it.show.performances[0].note == "6 taken from the journal"


def test_a_killed_router_is_noticed_by_another_one_in_its_place() -> None:
    it = course(ROUTER)
    it.begin()
    it.see(replace(WELL, router=replace(ROUTING, url="http://another")), 1)
    assert it.show.performances[0].noticed == pytest.approx(1)


def test_a_killed_router_with_an_empty_journal_heals_too() -> None:
    it = course(ROUTER)
    it.begin()
    it.see(DOWN, 1)
    it.see(DOWN, 2)
    it.see(WELL, 10)
    assert it.show.performances[0].outcome is Outcome.HEALED
    assert it.show.performances[0].note == "its journal was empty"


@pytest.mark.parametrize("act", [EXECUTOR, ROUTER], ids=lambda act: act.name)
def test_what_is_killed_is_killed_while_tasks_are_executing(act: Act) -> None:
    it = course(act)
    it.see(pool(3))
    assert it.see(pool(3), CALM_SECONDS) == []
    assert it.see(pool(3), READY_SECONDS / 2) == []
    assert it.see(WELL) != []


def test_an_act_does_not_wait_for_tasks_for_ever() -> None:
    it = course(ROUTER)
    it.see(pool(3))
    assert it.see(pool(3), CALM_SECONDS) == []
    assert it.see(pool(3), READY_SECONDS) == [Command(Kind.KILL_ROUTER)]


@pytest.mark.parametrize(
    ("act", "broken", "back"),
    [
        (REDIS, replace(WELL, router=replace(ROUTING, redis=False)), Kind.START_REDIS),
        (QUEUE, replace(WELL, router=replace(ROUTING, queue=False)), Kind.START_QUEUE),
    ],
    ids=["Redis", "queue"],
)
def test_redis_and_queue_are_started_when_the_router_has_noticed(act: Act, broken: Facts, back: Kind) -> None:
    it = course(act)
    it.begin()
    assert it.see(WELL, 5) == []
    assert it.see(broken, 1) == []
    assert it.see(broken, act.steps[0].hold) == [Command(back)]
    it.see(WELL, 1)
    assert it.show.performances[0].outcome is Outcome.HEALED


def test_the_pool_moves_and_comes_back() -> None:
    it = course(POOL)
    it.begin()
    it.see(WELL, 1)
    for count in (5, 2, 3):
        it.see(pool(count), 1)
        it.see(pool(count), 2)
    assert it.done == [Command(Kind.SCALE, 5), Command(Kind.SCALE, 2), Command(Kind.SCALE, 3)]
    assert it.show.performances[0].outcome is Outcome.HEALED


def test_no_act_begins_after_the_last_start_and_the_one_that_is_on_goes_to_its_end() -> None:
    it = course(EXECUTOR, ROUTER, last_start=3)
    it.begin()
    it.see(sick(2), 5)
    assert it.show.ending
    assert not it.show.over
    assert it.see(sick(2), 2) == [Command(Kind.START_EXECUTORS)]
    it.see(WELL, 1)
    assert it.show.over
    assert it.see(WELL, CALM_SECONDS * 2) == []


def test_time_counts_from_the_first_calm() -> None:
    it = course(EXECUTOR, last_start=3)
    it.see(DOWN)
    it.see(DOWN, 10)
    assert it.show.seconds(it.now) == 0
    it.begin()
    assert it.show.now_on is not None


def test_a_router_that_never_answers_does_not_hold_the_end_up() -> None:
    it = course(EXECUTOR, last_start=3)
    it.see(DOWN)
    it.see(DOWN, START_SECONDS)
    it.see(DOWN, 3)
    assert it.show.over


def test_keys_begin_acts_one_after_the_other() -> None:
    it = course(EXECUTOR, ROUTER)
    it.see(WELL)
    for key in "re":
        it.press(key)
    assert it.see(WELL) == [Command(Kind.KILL_ROUTER)]
    it.see(DOWN)
    it.see(DOWN, 1)
    it.see(WELL, 10)
    assert it.see(WELL) == [Command(Kind.KILL_EXECUTOR, 2)]


@pytest.mark.parametrize(("key", "count"), [("+", 4), ("-", 2)])
def test_plus_and_minus_move_the_pool(key: str, count: int) -> None:
    it = course()
    it.see(WELL)
    it.press(key)
    assert it.see(WELL) == [Command(Kind.SCALE, count)]
    it.see(pool(count))
    assert it.show.performances[0].outcome is Outcome.HEALED


def test_space_holds_the_programme_but_not_a_person() -> None:
    it = course(EXECUTOR, ROUTER)
    it.press(" ")
    assert it.begin() == []
    it.press("r")
    assert it.see(WELL) == [Command(Kind.KILL_ROUTER)]


def test_q_ends_the_show_and_unknown_keys_do_nothing() -> None:
    it = course(EXECUTOR)
    it.see(WELL)
    it.press("x")
    assert not it.show.ending
    it.press("q")
    it.see(WELL)
    assert it.show.over
