"""When an executor is healthy: the thresholds, and the checks that a pool makes on a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queueworker.routing.executors.health_checks import HealthState, period
from queueworker.routing.executors.slots import NoExecutors
from queueworker.routing.http.transport import Answer, Broken, NotSent, TimedOut, TooLarge, TransportError
from queueworker.routing.limits import Limits
from tests.support.fake_transport import UNHEALTHY
from tests.support.pools import PoolWorld, spec

if TYPE_CHECKING:
    from queueworker.routing.executors.executor import Executor


def test_an_executor_is_unhealthy_until_its_first_check_succeeds() -> None:
    state = HealthState()
    assert not state.passing
    assert state.reason
    assert state.succeeded(success_threshold=3), "the first success counts at once"
    assert (state.passing, state.reason) == (True, "")


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_thresholds_count_consecutive_checks(threshold: int) -> None:
    state = HealthState()
    state.succeeded(1)
    for failures in range(1, threshold + 1):
        assert state.failed("away", threshold) is (failures == threshold)
    assert (state.passing, state.reason) == (False, "away")
    for successes in range(1, threshold + 1):
        assert state.succeeded(threshold) is (successes == threshold)
    for _ in range(threshold - 1):
        state.failed("away", threshold)
        state.succeeded(threshold)
    assert state.passing, "a success in between begins the count anew"


def test_the_reason_is_that_of_the_last_failure() -> None:
    state = HealthState()
    state.succeeded(1)
    state.failed("first", 1)
    state.failed("second", 1)
    assert state.reason == "second"


def test_an_unhealthy_executor_is_checked_at_least_once_a_second() -> None:
    assert [period(True, 5), period(False, 5), period(False, 0.5)] == [5, 1.0, 0.5]


def test_executors_are_checked_once_a_period_and_not_all_at_the_same_moment() -> None:
    with PoolWorld(3) as world:
        world.advance(50)
        for i in range(3):
            assert 9 <= world.transport.checks(f"executor-{i}") <= 12
        assert {call.timeout for call in world.transport.calls} == {2}
        late = [call.at for call in world.transport.calls if call.at > 1010]
        assert len(set(late)) == len(late)


def test_each_answer_is_bounded() -> None:
    with PoolWorld(1) as world:
        assert {call.limit for call in world.transport.calls} == {Limits().max_small_body_bytes}
        assert {call.url.rpartition("/")[2] for call in world.transport.calls} == {"health", "capacity"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (UNHEALTHY, "http://executor-0/health answered 503 (text, 8 bytes)"),
        (Answer(204, b""), "http://executor-0/health answered 204 (an empty body)"),
        (Answer(301, b"moved"), "http://executor-0/health answered 301 (text, 5 bytes)"),
        (NotSent("http://executor-0: refused"), "no answer from http://executor-0: refused"),
        (Broken("http://executor-0: reset"), "no answer from http://executor-0: reset"),
        (TooLarge("http://executor-0", 201, None, 65536), "http://executor-0/health answered 201 (an empty body)"),
    ],
)
def test_an_executor_is_unhealthy_while_its_check_fails_and_shows_why(answer: Answer, reason: str) -> None:
    with PoolWorld() as world:
        world.transport.health["executor-0"] = answer
        changes = world.changes
        world.advance(6)
        assert (world.shown().healthy, world.shown().reason) == (False, reason)
        assert (world.pool.members.healthy_count, world.changes) == (1, changes + 1)
        del world.transport.health["executor-0"]
        world.advance(1.2)
        assert (world.shown().healthy, world.shown().reason) == (True, "")
        assert (world.pool.members.healthy_count, world.changes) == (2, changes + 2)


def test_only_the_status_of_a_health_check_counts_however_long_its_body_is() -> None:
    with PoolWorld(1) as world:
        world.transport.health["executor-0"] = TooLarge("http://executor-0", 200, 600_000_000, 65536)
        world.advance(20)
        assert world.shown().healthy


def test_the_thresholds_are_those_of_the_spec() -> None:
    check = {"failureThreshold": 3, "successThreshold": 2, "periodSeconds": 1, "maxAgeSeconds": 3600}
    with PoolWorld(1, {"healthCheck": check}) as world:
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(1.7)
        assert world.shown().healthy, "one or two failures"
        world.advance(2)
        assert not world.shown().healthy
        del world.transport.health["executor-0"]
        world.advance(0.5)
        assert not world.shown().healthy
        world.advance(2.5)
        assert world.shown().healthy


def test_a_changed_check_applies_at_once() -> None:
    with PoolWorld(1) as world:
        world.do(world.pool.apply, spec({"healthCheck": {"path": "/ready", "maxAgeSeconds": 3600}}))
        world.advance(0.1)
        assert world.transport.calls[-1].url == "http://executor-0/ready"


@pytest.mark.parametrize(
    ("advertised", "capacity"),
    [
        (None, 4),
        (2, 2),
        (1, 1),
        (100, 4),
        (0, 4),
        (-1, 4),
        ("2", 4),
        (2.0, 2),
        (2.5, 4),
        (b"<html>", 4),
        (b"[]", 4),
        (Broken("reset"), 4),
    ],
)
def test_an_executor_may_advertise_fewer_slots_than_concurrency(advertised: object, capacity: int) -> None:
    with PoolWorld(0, {"concurrency": 4}) as world:
        world.transport.capacity["executor-0"] = advertised
        world.set_pool(1)
        world.advance(0.1)
        assert world.shown().capacity == capacity


@pytest.mark.parametrize(
    ("advertised", "capacity"),
    [
        (None, 1),
        (4, 4),
        (1, 1),
        (10**18, 1000),
        (1001, 1000),
        (0, 1),
        (-1, 1),
        (True, 1),
        ("4", 1),
        (Broken("reset"), 1),
    ],
)
def test_without_concurrency_an_executor_has_the_slots_that_it_advertises_or_one(
    advertised: object, capacity: int
) -> None:
    with PoolWorld(0, {"concurrency": None}) as world:
        world.transport.capacity["executor-0"] = advertised
        world.set_pool(1)
        world.advance(0.1)
        assert world.shown().capacity == capacity


@pytest.mark.parametrize("silence", [Broken("reset"), TimedOut("late"), Answer(503, b"starting"), Answer(502, b"")])
def test_a_capacity_that_was_not_answered_is_asked_for_again(silence: Answer | TransportError) -> None:
    with PoolWorld(0, {"concurrency": None}) as world:
        world.transport.capacity["executor-0"] = silence
        world.set_pool(1)
        world.advance(20)
        asked = [call.at for call in world.transport.calls if call.url.endswith("/capacity")]
        assert len(asked) == 1, "each question may take as long as a health check"
        world.transport.capacity["executor-0"] = 4
        world.advance(20)
        assert world.shown().capacity == 4


def test_an_executor_without_the_call_is_asked_for_its_capacity_once() -> None:
    with PoolWorld(1, {"concurrency": None}) as world:
        world.advance(120)
        assert [call.url for call in world.transport.calls].count("http://executor-0/capacity") == 1


def test_a_capacity_that_was_of_no_use_is_asked_for_when_concurrency_changes() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        world.transport.capacity["executor-0"] = 4
        world.do(world.pool.apply, spec({"concurrency": None}))
        world.advance(6)
        assert world.shown().capacity == 4
        world.do(world.pool.apply, spec({"concurrency": 2}))
        assert world.shown().capacity == 2
        world.do(world.pool.apply, spec({"concurrency": None}))
        assert world.shown().capacity == 4
        asked = [call for call in world.transport.calls if call.url.endswith("/capacity")]
        world.advance(60)
        assert [call for call in world.transport.calls if call.url.endswith("/capacity")] == asked


def test_an_executor_is_asked_for_its_capacity_each_time_it_comes_back() -> None:
    with PoolWorld(1, {"concurrency": 4}) as world:
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(6)
        world.transport.capacity["executor-0"] = 3
        del world.transport.health["executor-0"]
        world.advance(1.2)
        assert world.shown().capacity == 3


def test_with_a_concurrency_of_one_nobody_is_asked_for_a_capacity() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        assert {call.url for call in world.transport.calls} == {"http://executor-0/health"}


def test_a_task_waits_for_a_check_where_the_last_one_is_too_old() -> None:
    with PoolWorld(1, {"healthCheck": {"maxAgeSeconds": 1, "periodSeconds": 5}}) as world:
        world.advance(3)
        world.transport.health_seconds = 0.5
        asked = world.transport.checks("executor-0")
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        assert world.transport.checks("executor-0") == asked + 1
        assert not acquiring.done()
        assert world.waits == ["a"]
        assert world.shown().in_flight == 1, "its slot is taken already"
        world.advance(0.6)
        assert acquiring.result().name == "executor-0"
        world.do(permit.release)


def test_a_check_is_made_before_the_last_one_is_too_old_so_that_no_task_waits() -> None:
    with PoolWorld(1, {"healthCheck": {"maxAgeSeconds": 2, "periodSeconds": 100}}) as world:
        world.advance(1.5)
        asked = world.transport.checks("executor-0")
        permit, _ = world.take()
        assert world.waits == []
        assert world.transport.checks("executor-0") == asked + 1
        world.do(permit.release)


def test_many_tasks_share_one_check_and_one_that_gives_up_takes_it_from_nobody() -> None:
    with PoolWorld(1, {"concurrency": 3, "healthCheck": {"maxAgeSeconds": 1, "periodSeconds": 100}}) as world:
        world.advance(3)
        world.transport.health_seconds = 0.5
        asked = world.transport.checks("executor-0")
        permits = [world.pool.reserve() for _ in range(3)]
        acquiring = [world.start(permit, f"t{i}") for i, permit in enumerate(permits)]
        acquiring[0].cancel()
        world.advance(0.6)
        assert world.transport.checks("executor-0") == asked + 1
        assert [task.cancelled() for task in acquiring] == [True, False, False]
        assert world.shown().in_flight == 2
        for permit in permits:
            world.do(permit.release)
        assert world.in_flight == 0


def test_a_defect_in_one_check_does_not_end_the_checks() -> None:
    with PoolWorld(1) as world:
        world.transport.health["executor-0"] = RuntimeError("a defect")  # type: ignore[assignment]
        world.advance(6)
        world.transport.health["executor-0"] = UNHEALTHY
        world.advance(6)
        assert not world.shown().healthy


def test_a_closed_pool_checks_nobody_any_more() -> None:
    with PoolWorld(3) as world:
        world.transport.health_seconds = 1.0
        world.advance(5.5)
        assert world.transport.probing
        world.run(world.pool.close())
        assert world.transport.probing == 0
        asked = len(world.transport.calls)
        world.advance(60)
        assert len(world.transport.calls) == asked


# --- executors that answer one request at a time

LATE = TimedOut("http://executor-0: 2 s")


def send(world: PoolWorld, name: str = "executor-0", tasks: int = 1) -> Executor:
    """Calls of `/execute` that the executor has not answered."""
    permit, executor = world.take_on(name)
    world.do(permit.release)
    executor.running = tasks
    return executor


def test_a_check_that_times_out_at_an_executor_at_work_is_no_failed_one() -> None:
    with PoolWorld(2) as world:
        executor = send(world)
        world.transport.health["executor-0"] = LATE
        changes, checked = world.changes, world.shown().last_check
        world.advance(60)
        shown = world.shown()
        assert (shown.healthy, shown.reason, shown.idle) == (True, "", False)
        assert (world.pool.members.healthy_count, world.changes, shown.last_check) == (2, changes, checked)
        executor.running = 0
        world.advance(6)
        assert world.shown().reason == "no answer from http://executor-0: 2 s"


@pytest.mark.parametrize(
    "answer", [UNHEALTHY, NotSent("http://executor-0: refused"), Broken("http://executor-0: reset")]
)
def test_a_refusal_is_a_failed_check_also_of_an_executor_at_work(answer: Answer | TransportError) -> None:
    with PoolWorld(2) as world:
        send(world)
        world.transport.health["executor-0"] = answer
        world.advance(6)
        assert not world.shown().healthy


def test_an_executor_that_is_silent_at_work_gets_no_further_task_until_it_answers_a_check() -> None:
    with PoolWorld(2) as world:
        send(world)
        world.transport.health["executor-0"] = LATE
        world.advance(6)
        assert {world.take()[1].name for _ in range(2)} == {"executor-1"}
        assert not world.pool.can_reserve
        frees = world.frees
        del world.transport.health["executor-0"]
        world.advance(6)
        assert world.frees > frees, "its slots are offered"
        assert world.take()[1].name == "executor-0"


def test_its_next_answer_of_any_kind_ends_the_silence() -> None:
    with PoolWorld(2) as world:
        executor = send(world)
        world.transport.health["executor-0"] = LATE
        world.advance(6)
        executor.running = 0
        frees = world.frees
        world.do(world.pool.heard_from, executor)
        assert world.frees > frees
        assert executor.available


def test_a_task_does_not_go_to_an_executor_whose_check_is_too_old_because_it_is_at_work() -> None:
    with PoolWorld(2, {"healthCheck": {"maxAgeSeconds": 1, "periodSeconds": 60}}) as world:
        executor = send(world)
        world.advance(3)
        world.transport.health["executor-0"] = LATE
        world.transport.health_seconds = 0.2
        taken = [world.start(world.pool.reserve(), f"t{i}") for i in range(2)]
        world.advance(3)
        assert [task.result().name for task in taken] == ["executor-1"] * 2
        assert executor.in_flight == 0


@pytest.mark.parametrize("at_work", [True, False])
def test_no_executors_means_sick_and_idle(at_work: bool) -> None:
    with PoolWorld(1, {"unavailableGraceSeconds": 5}) as world:
        executor = send(world, tasks=at_work)
        world.transport.health["executor-0"] = UNHEALTHY
        permit = world.pool.reserve()
        world.advance(6)
        waiting = world.start(permit)
        world.advance(30)
        assert waiting.done() is not at_work
        executor.running = 0
        world.advance(11)  # a look that finds it down, and the whole grace from then on
        assert isinstance(waiting.exception(), NoExecutors)
