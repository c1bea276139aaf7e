"""Whatever happens in any round of a router's event loop, it loses nothing that it had recorded.

A short scenario runs once undisturbed, and the rounds of its event loop are counted. Then it runs once for each of
these rounds, and in that round the router is killed, stopped, cut off or told something new. The random search of
test_router_properties.py may miss a moment between two awaits; this one does not. CI tries one round of each case,
`make test-properties` all of them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.model.scenario import Scenario
from tests.support.properties import SEARCHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASKS = ("a", "b", "c", "d")
WATCHED_SECONDS = 3.0
LEASE_SECONDS = 6.0
AWAY_SECONDS = 2 * LEASE_SECONDS
ENDING_SECONDS = 100.0
"""Longer than a lease and all retries of a task after it."""
SEEDS = range(2 if SEARCHING else 1)
"""Each seed has its own delays of the peers, and limits of the journal."""
ROUNDS_IN_CI = 1


def all_well(_: Scenario) -> None:
    pass


def executors_are(*modes: str) -> Callable[[Scenario], None]:
    def prepare(s: Scenario) -> None:
        for number, executor in enumerate(s.world.executors.values()):
            executor.mode = modes[number % len(modes)]

    return prepare


def tasks_take(seconds: float) -> Callable[[Scenario], None]:
    return lambda s: s.tasks_take(seconds)


def queue_falters(*faults: str) -> Callable[[Scenario], None]:
    return lambda s: s.world.queues["http://queue-a"].faults.extend(faults)


def redis_falters(*faults: str) -> Callable[[Scenario], None]:
    return lambda s: s.world.redis["redis://a"].faults.extend(faults)


WORLDS: dict[str, tuple[dict[str, Any], Callable[[Scenario], None]]] = {
    "all is well": ({}, all_well),
    "the journal is required": ({"routing": {"journal": "Required"}}, all_well),
    "one task at a time": ({"executors": {"concurrency": 1}, "routing": {"recovery": "Fail"}}, all_well),
    "executors work asynchronously": ({}, executors_are("async")),
    "executors fail and retries are on": (
        {"routing": {"retry": {"attempts": 3}}},
        executors_are("500", "ok", "503", "reset"),
    ),
    "tasks are long": ({"routing": {"drainSeconds": 30}}, tasks_take(20.0)),
    "tasks are longer than the drain": ({"routing": {"drainSeconds": 1}}, tasks_take(20.0)),
    "answers of the queue are lost": ({}, queue_falters("", "lost", "", "lost", "broken", "lost")),
    "answers of Redis are lost": ({}, redis_falters("", "lost", "late", "", "lost")),
}


def killed(s: Scenario) -> None:
    s.kill(s.live[0])


def stopped(s: Scenario) -> None:
    s.loop.create_task(s.live[0].supervisor.stop(final=False))


def stopped_for_good(s: Scenario) -> None:
    s.loop.create_task(s.live[0].supervisor.stop(final=True))


def stopped_and_killed(s: Scenario) -> None:
    stopped(s)
    s.loop.interrupt(4, lambda: s.kill(s.live[0]))


def cut_off(s: Scenario) -> None:
    s.live[0].link.cut_off = True


def redis_dies(s: Scenario) -> None:
    s.world.redis["redis://a"].set_mode("refused")


def redis_dies_and_the_router_too(s: Scenario) -> None:
    redis_dies(s)
    s.loop.interrupt(6, lambda: s.kill(s.live[0]))


def queue_dies(s: Scenario) -> None:
    s.world.queues["http://queue-a"].mode = "refused"


def executors_die(s: Scenario) -> None:
    executors_are("refused")(s)


def told_of_another_redis(s: Scenario) -> None:
    s.spec["events"] = {"redisURL": "redis://b"}
    running = s.live[0]
    running.config = s.config()
    running.supervisor.drive(running.config, s.endpoints)


HAPPENINGS: tuple[Callable[[Scenario], None], ...] = (
    killed,
    stopped,
    stopped_for_good,
    stopped_and_killed,
    cut_off,
    redis_dies,
    redis_dies_and_the_router_too,
    queue_dies,
    executors_die,
    told_of_another_redis,
)


def begun(world: str, seed: int) -> Scenario:
    spec, prepare = WORLDS[world]
    s = Scenario(seed, **spec)
    s.start()
    s.attempts = s.config().spec.routing.retry.attempts
    s.tasks_take(0.02)
    s.advance(0.5)
    prepare(s)
    s.submit(*TASKS)
    return s


def rounds_of(world: str, seed: int) -> int:
    s = begun(world, seed)
    try:
        before = s.loop.rounds
        s.advance(WATCHED_SECONDS)
        return s.loop.rounds - before
    finally:
        s.close()


def interrupted(world: str, seed: int, rounds: int, happening: Callable[[Scenario], None]) -> None:
    """Let it happen in that round, start a successor if there is no router, mend the world, draw up the account."""
    s = begun(world, seed)
    try:
        s.takeovers += 1
        s.loop.interrupt(rounds, lambda: happening(s))
        s.advance(WATCHED_SECONDS)
        if happening is cut_off:
            s.start()  # it takes over what the other has in its journal
            s.advance(LEASE_SECONDS)
            s.live[0].link.cut_off = False
        s.advance(AWAY_SECONDS)
        assert not s.loop.interrupts, "it did not happen"
        if s.dead or happening in {stopped, stopped_for_good}:
            s.start()
        s.world.redis["redis://a"].set_mode("up")
        s.world.queues["http://queue-a"].mode = "up"
        executors_are("ok")(s)
        s.advance(ENDING_SECONDS)
        s.live = [running for running in s.live if any(r.task and not r.task.done() for r in running.routers)]
        s.draw_up_account()
        if "lost" not in world and not (happening is cut_off and "long" not in world):
            nothing_twice(s, happening)
    finally:
        s.close()


def nothing_twice(s: Scenario, happening: Callable[[Scenario], None]) -> None:
    """Stricter than the account of a scenario, because only one thing happened.

    Not for a router that reports while it cannot know that another has taken the task over (docs/guarantees.md).
    """
    account = s.account
    if happening is not redis_dies_and_the_router_too:
        assert not account.executed_late, f"{account.executed_late} were executed after their report"
    if happening not in {killed, stopped_and_killed, redis_dies_and_the_router_too}:
        assert not account.second_reports, f"reported twice: {account.second_reports}"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of runs would be kept as this test's log."""
    logger = logging.getLogger("queueworker")
    logger.propagate = False
    yield
    logger.propagate = True


@pytest.mark.parametrize("happening", HAPPENINGS, ids=lambda happening: happening.__name__)
@pytest.mark.parametrize("world", WORLDS)
def test_nothing_is_lost_whatever_happens_in_any_round(world: str, happening: Callable[[Scenario], None]) -> None:
    failed = []
    for seed in SEEDS:
        number = rounds_of(world, seed)
        every = 1 if SEARCHING else number // ROUNDS_IN_CI
        first = 1 + (7 * HAPPENINGS.index(happening) + 3 * list(WORLDS).index(world)) % every
        for rounds in range(first, number, every):
            try:
                interrupted(world, seed, rounds, happening)
            except AssertionError as error:
                failed.append(f"seed {seed}, round {rounds} of {number}: {error}")
    assert not failed, f"{len(failed)}: " + "\n".join(failed[:5])
