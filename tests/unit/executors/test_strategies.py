"""What each strategy chooses: among available executors only, with the distribution that it promises."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from queueworker.resource.spec import StickyKey, Strategy
from queueworker.routing.executors.strategies import FEW, STICKY_LOAD_BOUND, Chooser, chooser
from queueworker.routing.wire.task import Task

DRAWS = 20_000


@dataclass(eq=False)
class Candidate:
    name: str
    capacity: int = 1
    in_flight: int = 0
    available: bool = True


def pool(count: int, capacity: int = 1) -> list[Candidate]:
    return [Candidate(f"executor-{i}", capacity) for i in range(count)]


def task(code: str = "", **fields: str) -> Task:
    known = {"eval_id": "a", "language": "", "engine": ""} | fields
    return Task(known["eval_id"], code, None, known["language"], known["engine"], b"null")


def made(strategy: Strategy, members: list[Candidate], key: StickyKey = StickyKey.CODE) -> Chooser[Candidate]:
    chosen: Chooser[Candidate] = chooser(strategy, key, Random(1))
    chosen.set_members(members)
    return chosen


def drawn(strategy: Strategy, members: list[Candidate], draws: int = DRAWS) -> Counter[str]:
    """How often each is chosen, by tasks of which no two are alike."""
    by = made(strategy, members)
    available = [member for member in members if member.available]
    return Counter(by.choose(available, task(f"code {i}")).name for i in range(draws))


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("count", [1, 2, FEW, FEW + 1, 100])
@pytest.mark.parametrize("away", [0.0, 0.5, 0.99])
def test_only_available_executors_are_chosen(strategy: Strategy, count: int, away: float) -> None:
    members = pool(count, capacity=2)
    for member in members[1:]:
        member.available = Random(member.name).random() >= away
    chosen = drawn(strategy, members, 300)
    assert chosen.keys() <= {member.name for member in members if member.available}


@pytest.mark.parametrize("strategy", [s for s in Strategy if s is not Strategy.STICKY])
@pytest.mark.parametrize("count", [3, FEW + 4])
def test_idle_equals_share_alike(strategy: Strategy, count: int) -> None:
    chosen = drawn(strategy, pool(count))
    assert chosen.total() / count * 0.9 < min(chosen.values())
    assert max(chosen.values()) < chosen.total() / count * 1.1


def test_round_robin_keeps_its_order_and_skips_the_busy() -> None:
    members = pool(4)
    by = made(Strategy.ROUND_ROBIN, members)
    order = [by.choose(members, task()).name[-1] for _ in range(6)]
    assert order == ["0", "1", "2", "3", "0", "1"]
    members[2].available = False
    order = [by.choose([members[0], members[1], members[3]], task()).name[-1] for _ in range(4)]
    assert order == ["3", "0", "1", "3"]


def test_round_robin_goes_on_where_it_was_when_the_pool_changes() -> None:
    members = pool(3)
    by = made(Strategy.ROUND_ROBIN, members)
    by.choose(members, task())
    members = [*members, Candidate("executor-9")]
    by.set_members(members)
    assert [by.choose(members, task()).name[-1] for _ in range(5)] == ["1", "2", "0", "9", "1"]


@pytest.mark.parametrize("count", [2, FEW])
def test_least_loaded_of_few_is_the_least_loaded(count: int) -> None:
    members = pool(count, capacity=4)
    for member in members[1:]:
        member.in_flight = 2
    members[0].in_flight = 1
    assert drawn(Strategy.LEAST_LOADED, members, 100) == {"executor-0": 100}


def test_least_loaded_goes_by_the_share_of_the_capacity() -> None:
    members = [Candidate("small", 2, 1), Candidate("large", 10, 4)]
    assert drawn(Strategy.LEAST_LOADED, members, 50) == {"large": 50}


def test_least_loaded_of_many_never_takes_the_fullest() -> None:
    members = pool(50, capacity=4)
    members[7].in_flight = 3
    assert "executor-7" not in drawn(Strategy.LEAST_LOADED, members)


def queue_lengths(strategy: Strategy, count: int) -> tuple[int, float]:
    """The longest queue, and the mean square of all, when as many tasks as executors were placed and stay."""
    members = pool(count, capacity=1_000)
    by = made(strategy, members)
    for i in range(count):
        chosen = by.choose(members, task(f"code {i}"))
        chosen.in_flight += 1
    return max(m.in_flight for m in members), sum(m.in_flight**2 for m in members) / count


@pytest.mark.parametrize("count", [FEW, 1_000])
def test_least_loaded_spreads_better_than_random(count: int) -> None:
    """Balls into bins: the fullest holds log n / log log n at random, log log n of two choices (Mitzenmacher, 2001)."""
    longest, spread = queue_lengths(Strategy.LEAST_LOADED, count)
    longest_at_random, spread_at_random = queue_lengths(Strategy.RANDOM, count)
    assert longest < longest_at_random
    assert spread < 0.85 * spread_at_random


def test_weighted_is_in_proportion_to_capacity() -> None:
    members = [Candidate("one", 1), Candidate("three", 3), Candidate("six", 6)]
    chosen = drawn(Strategy.WEIGHTED, members)
    for member in members:
        assert chosen[member.name] / DRAWS == pytest.approx(member.capacity / 10, abs=0.02)
    members[2].available = False
    chosen = drawn(Strategy.WEIGHTED, members)
    assert chosen["three"] / DRAWS == pytest.approx(0.75, abs=0.02)


KEYS = [f"code {i}" for i in range(2_000)]


def places(members: list[Candidate]) -> dict[str, str]:
    by = made(Strategy.STICKY, members)
    return {key: by.choose(members, task(key)).name for key in KEYS}


def test_sticky_gives_the_same_key_to_the_same_executor() -> None:
    assert places(pool(10)) == places(pool(10))
    assert places(pool(10)) == places(list(reversed(pool(10)))), "whatever the order of the pool"


@pytest.mark.parametrize("count", [4, 20, 100])
def test_sticky_moves_few_keys_when_an_executor_leaves_or_joins(count: int) -> None:
    before = places(pool(count))
    shares = []
    for which in range(0, count, max(1, count // 4)):
        joiner, members = Candidate(f"new-{which}"), pool(count)
        leaver = members.pop(which)
        more, fewer = places([*pool(count), joiner]), places(members)
        joined = [key for key in KEYS if more[key] != before[key]]
        left = [key for key in KEYS if fewer[key] != before[key]]
        assert {more[key] for key in joined} == {joiner.name}, "only what the new one wins moves"
        assert {before[key] for key in left} == {leaver.name}, "only what the old one held moves"
        shares += [len(joined) / len(KEYS), len(left) / len(KEYS)]
    assert 0.5 / count <= sum(shares) / len(shares) <= 1.5 / count


def test_sticky_does_not_overload_the_executor_of_a_popular_key() -> None:
    members = pool(5, capacity=100)
    by = made(Strategy.STICKY, members)
    for placed in range(1, 201):
        chosen = by.choose(members, task("popular"))
        chosen.in_flight += 1
        assert chosen.in_flight <= max(1.0, STICKY_LOAD_BOUND * (placed / 5 + 1))
    assert all(member.in_flight for member in members)


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (StickyKey.EVAL_ID, "eval_id"),
        (StickyKey.LANGUAGE, "language"),
        (StickyKey.ENGINE, "engine"),
        (StickyKey.CODE, "code"),
    ],
)
def test_sticky_goes_by_the_field_that_the_spec_names(key: StickyKey, field: str) -> None:
    members = pool(20)
    by = made(Strategy.STICKY, members, key)
    spread = {by.choose(members, task(**{field: f"value {i}"})).name for i in range(100)}
    same = {
        by.choose(members, task(**({"code": f"code {i}"} if field != "code" else {"engine": f"{i}"}))).name
        for i in range(100)
    }
    assert len(spread) > 10
    assert len(same) == 1
