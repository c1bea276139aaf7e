"""Who gets how much, and who waits how long: the real pool and strategies in virtual time, the same for each seed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.balance import mean_wait_of_two_choices
from bench.simulation import Kind, Run, Simulation
from queueworker.resource.spec import StickyKey, Strategy
from queueworker.routing.executors.strategies import Sticky
from queueworker.routing.wire.task import Task

ALL = tuple(Strategy)


def simulate(kinds: list[Kind], strategy: str, load: float, tasks: int = 2000, **executors: object) -> Run:
    return Simulation(kinds, strategy, load=load, tasks=tasks, seed=7, **executors).run()


def test_two_choices_among_many_wait_as_little_as_mitzenmacher_promises() -> None:
    kinds = [Kind(slots=1000)] * 20
    least, chance = (simulate(kinds, s, 0.7, tasks=8000) for s in ("LeastLoaded", "Random"))
    assert least.mean == pytest.approx(mean_wait_of_two_choices(0.7), rel=0.15)
    assert chance.mean == pytest.approx(0.7 / (1 - 0.7), rel=0.15), "M/M/1: what chance alone gives"
    assert least.wait(0.99) < chance.wait(0.99) / 2


def test_least_loaded_keeps_tasks_away_from_a_slow_executor() -> None:
    kinds = [Kind(speed=0.1, workers=4, slots=16)] + [Kind(workers=4, slots=16)] * 7
    least, chance = (simulate(kinds, s, 0.75, tasks=4000) for s in ("LeastLoaded", "Random"))
    assert least.wait(0.99) < chance.wait(0.99) / 10
    assert least.share(0) < chance.share(0)


def test_least_loaded_gives_by_capacity_where_random_gives_all_the_same() -> None:
    kinds = [Kind(workers=w, slots=4 * w) for w in (8, 8, 4, 4, 2, 2, 1, 1)]
    least, chance = (simulate(kinds, s, 0.8) for s in ("LeastLoaded", "Random"))
    able = (8 + 8) / 30
    assert abs(least.share(0, 1) - able) < abs(chance.share(0, 1) - able)
    assert least.wait(0.99) < chance.wait(0.99) / 3


@pytest.mark.parametrize("strategy", ALL)
def test_an_executor_that_breaks_every_task_at_once_does_not_draw_them_in(strategy: str) -> None:
    run = simulate([Kind(breaks=0.01)] + [Kind()] * 7, strategy, 0.75)
    assert run.share(0) < 1 / 8 / 10
    assert run.broken < 30


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("load", [0.5, 0.98])
def test_an_executor_whose_tasks_fail_at_once_gets_no_more_than_the_others(strategy: str, load: float) -> None:
    run = simulate([Kind(fails=0.01)] + [Kind()] * 7, strategy, load)
    assert run.share(0) < 1.2 / 8


def test_where_tasks_fail_everywhere_nobody_is_slowed_down_or_ejected() -> None:
    run = simulate([Kind(fails=0.01)] * 8 + [Kind()], "LeastLoaded", 2)
    assert run.wait(0.99) < 0.1


def test_where_every_executor_breaks_its_tasks_half_of_them_stay() -> None:
    run = simulate([Kind(breaks=0.01)] * 8 + [Kind()], "LeastLoaded", 0.5, tasks=1000)
    late = [m for m in run.machines if any(t > 100 for t in m.times)]
    assert len(late) >= 5
    assert run.broken


def test_a_returning_executor_gets_its_slots_one_after_the_other() -> None:
    """A backlog all the time: what it is given in a second is what it has slots for."""
    kinds = [Kind(workers=10, slots=10, away=(30, 60))] + [Kind(workers=10, slots=10)] * 3
    run = simulate(kinds, "Random", 1.5, tasks=4000, slowStartSeconds=20)
    starts = run.machines[0].times
    assert not [t for t in starts if 31.2 < t < 60], "it is away"
    back = min(t for t in starts if t >= 60)
    given = [sum(back + 5 * i <= t < back + 5 * (i + 1) for t in starts) for i in range(5)]
    assert all(later > earlier for earlier, later in pairwise(given[:4])), f"by five seconds: {given}"
    assert given[0] < given[4] / 2.5, f"by five seconds: {given}"
    cold = [sum(1 <= t < 2 for t in m.times) for m in run.machines]
    assert min(cold) >= 5, "at a cold start of them all nobody waits for anybody"


def test_without_slow_start_a_returning_executor_has_all_its_slots_at_once() -> None:
    kinds = [Kind(workers=10, slots=10, away=(30, 60))] + [Kind(workers=10, slots=10)] * 3
    run = simulate(kinds, "Random", 1.5, tasks=4000, slowStartSeconds=0)
    back = min(t for t in run.machines[0].times if t >= 60)
    assert sum(back <= t < back + 0.5 for t in run.machines[0].times) >= 10


class Candidate:
    capacity, in_flight, available = 10, 0, True

    def __init__(self, name: str) -> None:
        self.name = name


def placed(sticky: Sticky[Candidate], members: list[Candidate], keys: list[Task]) -> dict[str, str]:
    sticky.set_members(tuple(members))
    return {task.eval_id: sticky.choose(members, task).name for task in keys}


def test_sticky_moves_no_more_keys_than_the_executor_that_comes_or_goes_held() -> None:
    from random import Random

    n = 10
    members = [Candidate(f"executor-{i}") for i in range(n)]
    keys = [Task(f"key-{i}", "", None, "", "", b"null") for i in range(5000)]
    sticky = Sticky[Candidate](Random(1), StickyKey.EVAL_ID)
    before = placed(sticky, members, keys)
    without = placed(sticky, members[1:], keys)
    moved = {k for k in before if before[k] != without[k]}
    assert moved == {k for k in before if before[k] == "executor-0"}, "only the keys of the one that went"
    assert len(moved) <= 1.5 / n * len(keys)
    assert placed(sticky, members, keys) == before, "it is back, and so are its keys"
    more = placed(sticky, [*members, Candidate("executor-10")], keys)
    moved = {k for k in before if before[k] != more[k]}
    assert {more[k] for k in moved} == {"executor-10"}
    assert len(moved) <= 1.5 / (n + 1) * len(keys)
