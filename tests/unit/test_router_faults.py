"""Faults that random interleavings found, and their relatives: each by its shortest way, on a virtual clock."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from tests.support.model.scenario import GROUP, Scenario

A, B = "redis://a", "redis://b"
QUEUE = "http://queue-a"
BASE = f"queueworker:{{{GROUP}}}:"


def leave(s: Scenario, eval_id: str, redis: str = A, state: State = State.PULLED, **fields: Any) -> None:
    """A task in the journal of a router that died."""
    s.account.handed[eval_id] += 1
    s.world.queues[QUEUE].known.add(eval_id)
    task = orjson.dumps({"eval_id": eval_id, "code": "", "timeout": 3})
    left = entries.encode_task(state, QUEUE, task, **fields)
    s.world.redis[redis].run(b"SADD", f"{BASE}instances".encode(), b"dead")
    s.world.redis[redis].run(b"HSET", f"{BASE}journal:dead".encode(), eval_id.encode(), left)


def entry(s: Scenario, eval_id: str) -> dict[str, Any]:
    """That of the only journal that has the task."""
    (journal,) = [journal for journal, ids in s.world.redis[A].journals().items() if eval_id in ids]
    found: dict[str, Any] = orjson.loads(s.world.redis[A].run(b"HGET", journal.encode(), eval_id.encode()))
    return found


# --- health checks that several wait for


def wait_for_one_check(s: Scenario) -> None:
    """Until the task `a` and the periodic check wait for one and the same answer, of an executor that gives none."""
    wire, executor = s.live[0].wire, "http://executor-0"
    s.advance(1)
    s.world.executors["http://executor-0"].mode = "frozen"
    while not wire.open_checks[executor]:
        s.advance(0.01)
    s.submit("a")
    s.advance(1.2)
    assert s.live[0].held == {"a"}
    assert wire.open_checks[executor] == 1


def test_a_task_that_waits_for_a_health_check_survives_new_check_settings() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 10}}) as s:
        s.set_pool([0])
        wait_for_one_check(s)
        s.apply(executors={"healthCheck": {"periodSeconds": 50}})
        s.advance(0.1)
        assert s.live[0].held == {"a"}


def test_a_task_that_gives_up_waiting_for_a_health_check_does_not_end_the_executors_checks() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 10}}) as s:
        s.set_pool([0])
        wait_for_one_check(s)
        (flight,) = s.live[0].router.in_flight.values()
        assert flight.run is not None
        flight.run.cancel()  # as when another router has taken it over
        s.account.lost.add("a")
        s.advance(5)
        s.world.executors["http://executor-0"].mode = "ok"
        s.advance(5)
        assert s.live[0].router.snapshot().healthy == 1
        checks = s.live[0].wire.checks["http://executor-0"]
        s.advance(20)
        assert s.live[0].wire.checks["http://executor-0"] > checks


def test_no_task_goes_to_an_executor_that_left_while_it_was_asked_for_its_health() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 100}}) as s:
        s.set_pool([0, 1])
        s.advance(20)
        s.rng.seed(1)
        s.submit("a")
        while not any(e.in_flight for e in s.live[0].router.snapshot().executors):
            s.advance(0.0001)
        (chosen,) = (i for i, e in enumerate(s.live[0].router.snapshot().executors) if e.in_flight)
        s.set_pool([1 - chosen])
        s.advance(5)
        assert s.account.reported["a"] == 1


def test_no_task_goes_to_an_executor_whose_check_grew_old_while_the_subscription_was_made() -> None:
    with Scenario() as s:
        s.advance(1)
        s.world.redis[A].set_mode("hang")
        s.submit("a")
        s.advance(5)
        assert s.account.reported["a"] == 1


# --- slots


def test_with_no_grace_a_task_waits_in_peace_while_executors_are_busy() -> None:
    with Scenario(
        executors={"unavailableGraceSeconds": 0}, routing={"retry": {"attempts": 2, "backoffSeconds": 4}}
    ) as s:
        s.set_pool([0])
        s.attempts = 2
        s.advance(1)
        executor = s.world.executors["http://executor-0"]
        executor.mode = "500"
        s.submit("a")
        s.advance(2)
        assert s.account.executed["a"] == 1
        executor.mode, executor.seconds = "ok", 6.0
        s.submit("b")
        s.advance(2)
        assert s.account.executed["b"] == 1, "it has the only slot when `a` is to be tried again"
        s.advance(20)
        assert s.account.reported == {"a": 1, "b": 1}


# --- the queue's turns


def test_a_router_that_loses_its_tasks_while_it_tries_the_queue_goes_on_trying() -> None:
    with Scenario() as s:
        s.submit("a")
        s.tasks_take(3)
        s.advance(2)
        s.world.queues[QUEUE].mode = "refused"
        s.advance(7)
        s.world.queues[QUEUE].mode = "hang"  # the next try hangs, and is the report of `a`
        s.advance(3)
        running = s.live[0]
        assert running.held == {"a"}
        running.link.cut_off = True
        successor = s.start()
        s.advance(8)
        assert successor.held == {"a"}
        running.link.cut_off = False
        s.advance(1)
        s.kill(successor)
        s.account.lost.discard("a")
        s.world.queues[QUEUE].mode = "up"
        s.submit("b")
        s.advance(90)
        assert s.account.reported["b"] == 1
        assert s.account.reported["a"] == 1


@pytest.mark.parametrize("drain", [0, 30])
def test_a_pull_that_is_under_way_is_awaited_however_short_the_drain(drain: int) -> None:
    with Scenario(routing={"drainSeconds": drain}) as s:
        s.advance(2)
        s.world.latency = lambda: 0.5  # type: ignore[method-assign]
        s.submit("a")
        while not s.account.handed:
            s.advance(0.01)
        s.stop(s.live[0])
        s.start()
        s.advance(10)
        assert s.account.reported["a"] == 1
        assert not s.account.lost


def test_a_copy_that_is_handed_out_between_a_report_and_its_answer_is_reported_as_well() -> None:
    with Scenario() as s:
        s.advance(2)
        slow = iter([3.0])  # the first latency after the report was taken is that of its answer
        s.world.latency = lambda: next(slow, 0.0) if s.account.reported else 0.0  # type: ignore[method-assign]
        s.submit("a")
        while not s.account.reported:
            s.advance(0.01)
        s.submit("a")
        s.advance(2)
        assert s.account.handed["a"] == 2
        assert s.live[0].held == {"a"}, "it waits for the answer to its report"
        s.advance(5)
        assert s.account.reported["a"] == 2
        assert s.account.executed["a"] == 1


def test_a_copy_that_is_handed_out_before_the_report_needs_none_of_its_own() -> None:
    with Scenario() as s:
        s.tasks_take(3)
        s.submit("a")
        s.advance(1)
        s.submit("a")
        s.advance(10)
        assert s.account.handed["a"] == 2
        assert s.account.reported["a"] == 1
        assert not s.account.second_reports


# --- asynchronous executors


def test_that_a_task_runs_is_not_taken_for_its_outcome_when_nobody_heard_that() -> None:
    with Scenario() as s:
        for executor in s.world.executors.values():
            executor.mode, executor.seconds, executor.has_logs = "async", 1.0, False
        s.advance(2)
        s.submit("a")
        while not s.account.executed:
            s.advance(0.01)
        s.advance(0.5)
        s.world.redis[A].set_mode("hang")
        s.advance(4)  # `running` was answered and waits for Redis; the outcome was published and is gone
        s.world.redis[A].set_mode("up")
        s.advance(5)
        assert s.live[0].held == {"a"}
        s.advance(10)
        assert s.account.reported["a"] == 1
        assert s.account.published["a"] == 1


# --- the journal


def test_entries_that_redis_forgot_are_not_taken_for_a_successors() -> None:
    with Scenario(executors={"whenUnavailable": "Hold"}) as s:
        s.tasks_take(60)
        s.submit("a")
        s.advance(3)
        running = s.live[0]
        assert s.journalled() == {"a"}
        s.world.redis[A].empty()
        # the beat takes a new lease; the batch that would write `a` again breaks, and then nothing passes any more
        s.world.redis[A].faults.extend(["", "broken"])
        while s.world.redis[A].faults:
            s.advance(0.001)
        running.link.cut_off = True
        successor = s.start()
        s.advance(10)
        assert not successor.held
        running.link.cut_off = False
        s.advance(30)
        assert s.account.reported["a"] == 1


def test_a_journal_that_is_left_while_it_is_starting_keeps_what_it_has_just_recovered() -> None:
    s = Scenario()
    leave(s, "a")
    s.takeovers += 1
    with s:
        s.advance(0)
        s.apply(events={"redisURL": B})
        s.advance(30)
        s.apply(events={"redisURL": A})
        s.advance(30)
        assert s.account.executed["a"] == 1


def test_events_that_wait_for_redis_outlive_the_loss_of_the_lease() -> None:
    with Scenario() as s:
        s.advance(2)
        running = s.live[0]
        running.link.cut_off = True
        s.advance(3)
        s.submit("a")
        s.advance(5)
        assert s.account.reported["a"] == 1
        s.start()
        s.advance(8)
        running.link.cut_off = False
        s.advance(8)
        assert s.account.published["a"] == 1


def test_events_for_a_redis_that_is_gone_are_published_on_the_one_that_takes_its_place() -> None:
    with Scenario() as s:
        s.advance(2)
        s.world.redis[A].set_mode("refused")
        s.submit("a")
        s.advance(5)
        assert s.account.reported["a"] == 1
        s.apply(events={"redisURL": B})
        s.advance(10)
        assert s.account.published["a"] == 1


def test_moving_twice_at_once_ends_on_the_last_redis_and_leaves_nothing_open() -> None:
    with Scenario() as s:
        s.world.redis[B].set_mode("hang")
        s.advance(3)
        s.apply(events={"redisURL": B})
        s.apply(events={"redisURL": A})
        s.advance(30)
        running = s.live[0]
        assert running.config.redis_url == A
        assert [client.server for client in running.clients] == [s.world.redis[A]]


def test_stopping_in_the_middle_of_a_move_gives_every_lease_up() -> None:
    with Scenario(routing={"drainSeconds": 1}) as s:
        s.tasks_take(100)
        s.submit("a")
        s.advance(3)
        s.apply(events={"redisURL": B})
        s.stop(s.live[0])
        assert s.world.redis[A].journalled() == set()
        assert s.world.redis[B].journalled() == {"a"}, "the next process looks for its tasks there"
        for url in (A, B):
            keys = [key for key in s.world.redis[url]._data if b":lease:" in key]
            assert keys == [], url
        s.tasks_take(0.1)
        s.start()


def test_what_redis_forgot_just_before_the_stop_is_left_to_the_successor_all_the_same() -> None:
    with Scenario(routing={"drainSeconds": 0}) as s:
        s.tasks_take(100)
        s.submit("a")
        s.advance(3)
        assert s.journalled() == {"a"}
        s.world.redis[A].empty()
        s.stop(s.live[0])
        assert s.journalled() == {"a"}
        s.start()


def test_what_waits_for_redis_is_written_as_soon_as_a_beat_has_found_it_back() -> None:
    with Scenario() as s:
        s.advance(2)
        s.world.redis[A].set_mode("refused")
        s.submit("a")
        s.advance(20)  # by now a batch is tried every five seconds, and the lease every two
        assert s.account.reported["a"] == 1
        s.world.redis[A].set_mode("up")
        while not s.live[0].router.snapshot().journal.ok:
            s.advance(0.01)
        s.advance(0.3)
        assert s.account.published["a"] == 1


def test_events_outlive_a_move_that_the_stop_follows_at_once() -> None:
    with Scenario() as s:
        s.advance(2)
        s.world.redis[A].set_mode("refused")
        s.submit("a")
        s.advance(5)
        assert s.account.reported["a"] == 1
        s.apply(events={"redisURL": B})
        s.stop(s.live[0])
        assert s.account.published["a"] == 1
        s.start()


def test_what_is_left_is_written_when_redis_falters_during_the_stop() -> None:
    with Scenario() as s:
        s.submit("a")
        s.tasks_take(1)
        s.advance(1.5)
        s.world.redis[A].faults.extend(["broken"])
        s.stop(s.live[0])
        assert s.account.published["a"] == 1
        s.start()


@pytest.mark.parametrize("away", [9.0, 12.0, 12.7])
def test_a_lease_that_is_found_lost_during_the_stop_leaves_nothing_open(away: float) -> None:
    with Scenario(routing={"drainSeconds": 0}) as s:
        s.tasks_take(5)
        s.advance(2)
        first = s.live[0]
        s.start()
        first.link.cut_off = True
        s.advance(away - 1)
        s.submit("a")
        s.advance(1)
        first.link.cut_off = False
        s.stop(first)
        s.check()


def test_a_final_stop_reports_what_was_recovered_and_never_got_a_slot() -> None:
    s = Scenario(executors={"whenUnavailable": "Hold"}, routing={"drainSeconds": 1})
    leave(s, "a")
    s.set_pool([])
    with s:
        s.advance(5)
        assert s.live[0].held == {"a"}
        s.stop(s.live[0], final=True)
        assert s.account.reported["a"] == 1
        s.start()


def test_an_entry_that_is_taken_over_while_its_task_is_in_flight_elsewhere_goes_with_the_task() -> None:
    with Scenario() as s:
        s.tasks_take(20)
        s.submit("a")
        s.advance(3)
        s.kill(s.live[0])  # its entry stays on A
        s.apply(events={"redisURL": B})
        s.start()
        s.submit("a")
        s.advance(3)
        assert s.world.redis[A].journalled() == s.world.redis[B].journalled() == {"a"}
        s.apply(events={"redisURL": A})
        s.advance(10)
        assert s.live[0].held == {"a"}
        assert s.world.redis[A].journalled() == {"a"}, "a death would lose the task if the other Redis were gone"
        s.advance(40)
        assert s.account.reported["a"] == 1
        assert s.journalled() == set()


@pytest.mark.parametrize(("seed", "away", "back"), [(1, 0.0, 0.0), (0, 5.0, 1.06)], ids=["at the start", "later"])
def test_what_a_router_took_over_and_has_not_read_outlives_a_move_and_the_way_back(
    seed: int, away: float, back: float
) -> None:
    """A heartbeat moves one entry, or has just moved all of them, when the router leaves for another Redis."""
    s = Scenario(seed, routing={"drainSeconds": 0})
    leave(s, "a")
    leave(s, "b")
    s.world.redis[A].set_mode("refused" if away else "up")
    with s:
        s.advance(away)
        s.world.redis[A].set_mode("up")
        s.advance(back)
        s.apply(events={"redisURL": B})
        s.advance(30)
        s.apply(events={"redisURL": A})
        s.advance(30)
        assert s.account.reported["a"] == s.account.reported["b"] == 1


def test_what_a_router_left_that_was_told_of_another_redis_too_late_outlives_the_way_back() -> None:
    """It has left its tasks in its journal already, for a successor on the same Redis."""
    s = Scenario(executors={"whenUnavailable": "Hold"})
    leave(s, "a")
    s.set_pool([])
    with s:
        s.advance(5)
        assert s.live[0].held == {"a"}
        s.apply(queue={"url": "http://queue-b"})
        s.advance(0.0001)
        s.apply(events={"redisURL": B})
        s.advance(10)
        s.set_pool([0])
        s.apply(events={"redisURL": A})
        s.advance(30)
        assert s.account.reported["a"] == 1


def test_what_a_router_could_neither_report_nor_write_goes_to_the_one_that_replaces_it() -> None:
    with Scenario(routing={"drainSeconds": 0}) as s:
        s.advance(3)
        s.world.redis[A].set_mode("refused")
        s.advance(20)
        s.submit("a")
        while "a" not in s.known():
            s.advance(0.01)
        s.world.queues[QUEUE].mode = "refused"
        s.advance(60)
        s.apply(queue={"url": "http://queue-b"})
        s.advance(120)
        s.world.redis[A].set_mode("up")
        s.world.queues[QUEUE].mode = "up"
        s.advance(60)
        assert s.account.reported["a"] == s.account.published["a"] == 1


def test_a_queue_that_hands_out_a_task_of_a_queue_that_is_gone_gets_its_outcome() -> None:
    with Scenario(routing={"drainSeconds": 0}) as s:
        s.advance(2)
        s.submit("a")
        s.tasks_take(1)
        s.advance(0.9)
        s.world.queues[QUEUE].mode = "refused"
        s.advance(5)
        s.apply(queue={"url": "http://queue-b"})
        s.advance(60)
        assert s.live[0].held == {"a"}
        s.submit("a", queue="b")
        s.advance(60)
        assert not s.world.queues["http://queue-b"].waiting
        assert not s.world.queues["http://queue-b"].known, "it was never told how the task ended"
        assert s.account.executed["a"] == 1
        s.world.queues[QUEUE].mode = "up"
        s.advance(60)


def test_a_routers_death_is_counted_once_however_long_the_task_waits_for_an_executor_then() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 50, "maxAgeSeconds": 1}}) as s:
        s.set_pool([0])
        s.advance(1)
        leave(s, "a", state=State.EXECUTING, executor="executor-0", deadline=time.time() + 5)
        while "a" not in s.live[0].held:
            s.advance(0.1)
        s.world.executors["http://executor-0"].mode = "frozen"
        while entry(s, "a")["state"] != "pulled":
            s.advance(0.1)
        assert entry(s, "a")["deaths"] == 1
        assert "until" not in entry(s, "a"), "a successor would wait for the outcome, and count that death, again"


# --- the end


@pytest.mark.parametrize("broken", ["transport", "redis"])
def test_a_router_stops_whatever_a_step_of_closing_raises(broken: str) -> None:
    async def raise_error() -> None:
        raise RuntimeError("a defect")

    with Scenario() as s:
        s.submit("a")
        s.advance(5)
        running = s.live[0]
        for part in [running.wire] if broken == "transport" else running.clients:
            setattr(part, "close" if broken == "transport" else "aclose", raise_error)
        stop = s.loop.create_task(running.supervisor.stop(final=False))
        s.advance(60)
        assert stop.done(), "stop() must return"
        assert all("a step of closing the router failed" in error for error in s.errors.seen)
        assert s.errors.seen
        s.errors.seen.clear()
        s.live.remove(running)
        s.takeovers += 1
        s.start()
