"""One attempt at a task: what the task, the pool and the journal are told, for every verdict."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from queueworker.resource.spec import EventFormat
from queueworker.routing.executors.async_outcomes import AsyncOutcomes
from queueworker.routing.executors.attempt import EXECUTE_MARGIN_SECONDS, Attempts, Retry
from queueworker.routing.http.transport import Answer, Broken, NotSent, TimedOut, TooLarge, TransportError
from queueworker.routing.wire.cloud_events import Envelope
from queueworker.routing.wire.outcome import CHANNEL_RUNNING, Event, Outcome
from tests.support.pools import PoolWorld, flight, spec

if TYPE_CHECKING:
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.in_flight import InFlightTask
    from queueworker.routing.journal.journal import Journal

COMPLETED = b'{"status": "completed", "output": "1"}'
RUNNING = Answer(200, b'{"status": "running", "executor_id": "e", "container_id": "c"}')
RETRY = {"retry": {"attempts": 3, "backoffSeconds": 2}}
OWN_FAULT = "failed by a fault of the executor's own"


class FakeJournal:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.entries: list[dict[str, Any]] = []

    def publish(self, event: Event) -> None:
        self.events.append(event)

    def put(self, eval_id: str, entry: bytes) -> None:
        self.entries.append(orjson.loads(entry))


class FakeOutcomes(AsyncOutcomes):
    """Outcomes are published by the test; there is no Redis."""

    def __init__(self) -> None:
        super().__init__("redis://none", max_body_bytes=0)
        self.listened = 0
        self.waiting: dict[str, asyncio.Future[Outcome]] = {}

    async def listen(self) -> None:
        self.listened += 1

    def subscribe(self, eval_id: str) -> asyncio.Future[Outcome]:
        self.waiting[eval_id] = super().subscribe(eval_id)
        return self.waiting[eval_id]

    def unsubscribe(self, eval_id: str) -> None:
        super().unsubscribe(eval_id)
        del self.waiting[eval_id]


class AttemptWorld(PoolWorld):
    """A pool, and attempts at the task `a` on its first executor."""

    def __init__(self, *arguments: Any, **routing: Any) -> None:
        super().__init__(*arguments, **routing)
        self.journal = FakeJournal()
        self.outcomes = FakeOutcomes()
        self.flight: InFlightTask = flight("a", pulled_at=self.loop.time())
        envelope = Envelope("default/legacy", EventFormat.LEGACY)
        self.attempts = Attempts(
            *(spec(*arguments[1:], **routing), self.outcomes, self.pool, self.transport),
            cast("Journal", self.journal),
            envelope,
            self.counters,
            self.loop.time,
        )

    def start_attempt(
        self, *answers: Answer | TransportError, timeout: int = 30
    ) -> tuple[Executor, asyncio.Task[Outcome | Retry]]:
        self.transport.answers.extend(answers)
        permit, executor = self.take_on("executor-0")

        async def attempt() -> Outcome | Retry:
            try:
                return await self.attempts.attempt(self.flight, executor, b"{}", timeout)
            finally:
                permit.release()

        task = self.loop.create_task(attempt())
        self.advance(0.01)
        return executor, task

    def attempt(self, *answers: Answer | TransportError) -> Outcome | Retry:
        return self.start_attempt(*answers)[1].result()

    def publish(self, outcome: Outcome) -> None:
        self.do(self.outcomes.waiting["a"].set_result, outcome)
        self.advance(0.01)


def test_the_request_has_the_tasks_time_and_a_margin_and_a_bound() -> None:
    with AttemptWorld(2, None, maxBodyMebibytes=3) as world:
        world.attempt(Answer(200, COMPLETED))
        call = world.transport.calls[-1]
        assert (call.method, call.url, call.body) == ("POST", "http://executor-0/execute", b"{}")
        assert call.timeout == 30 + EXECUTE_MARGIN_SECONDS
        assert call.limit == 3 * 1024 * 1024


def test_a_changed_limit_applies_to_the_next_attempt() -> None:
    with AttemptWorld(2) as world:
        world.attempts.apply(spec(maxBodyMebibytes=5))
        world.attempt(Answer(200, COMPLETED))
        assert world.transport.calls[-1].limit == world.outcomes.max_body_bytes == 5 * 1024 * 1024


@pytest.mark.parametrize("was_ambiguous", [False, True])
def test_a_result_is_the_outcome_and_nothing_is_ambiguous_any_more(was_ambiguous: bool) -> None:
    with AttemptWorld(2) as world:
        world.flight.ambiguous = was_ambiguous
        executor, task = world.start_attempt(Answer(200, COMPLETED))
        assert task.result() == Outcome(True, "", COMPLETED)
        assert not world.flight.ambiguous
        assert executor.completes_async is False
        assert world.counters.attempts_failed == 0
        assert world.outcomes.waiting == {}


def test_a_result_ends_the_executors_row_of_failures() -> None:
    with AttemptWorld(2) as world:
        for failures in (4, 1):
            for _ in range(failures):
                world.attempt(Answer(500, b"oops"))
            world.attempt(Answer(200, b'{"status": "failed", "error": "Traceback"}'))
        assert world.shown().healthy


FAILURES: list[tuple[Answer | TransportError, str, bool]] = [
    (Answer(400, b"bad"), "Executor rejected task: bad", False),
    (Answer(413, b"large"), "Executor rejected task: large", False),
    (Answer(500, b"oops"), "Executor rejected task: oops", True),
    (Answer(504, b"late"), "Executor rejected task: late", True),
    (Answer(200, b"<html>"), "executor executor-0 answered no JSON: <html>", True),
    (Broken("http://e: reset"), "executor executor-0: http://e: reset", True),
    (TimedOut("http://e: 40 s"), "executor executor-0: http://e: 40 s", True),
    (
        TooLarge("http://e: too large", 200, 12_345_678, 8 * 1024 * 1024),
        "executor executor-0 answered with 12,345,678 bytes, more than routing.maxBodyMebibytes allows (8 MiB)",
        True,
    ),
]


@pytest.mark.parametrize(("answer", "error", "ambiguous"), FAILURES)
def test_a_failure_that_may_not_be_retried_is_the_outcome(
    answer: Answer | TransportError, error: str, ambiguous: bool
) -> None:
    with AttemptWorld(2) as world:
        assert world.attempt(answer) == Outcome(completed=False, error=error)
        assert world.flight.ambiguous is ambiguous
        assert (world.counters.attempts_failed, world.counters.retried) == (1, 0)
        assert world.journal.entries == []
        assert world.in_flight == 0


@pytest.mark.parametrize("answer", [Answer(400, b"bad"), Answer(429, b"full"), NotSent("http://e: refused")])
def test_a_task_that_may_have_run_before_stays_ambiguous_when_an_attempt_did_not_run_it(
    answer: Answer | TransportError,
) -> None:
    with AttemptWorld(2) as world:
        world.flight.ambiguous = True
        world.attempt(answer)
        assert world.flight.ambiguous


@pytest.mark.parametrize(("answer", "error", "ambiguous"), FAILURES)
def test_retry_allows_another_attempt_after_its_backoff_where_the_outcome_is_unknown(
    answer: Answer | TransportError, error: str, ambiguous: bool
) -> None:
    with AttemptWorld(2, None, **RETRY) as world:
        unknown = ambiguous and not isinstance(answer, TooLarge)
        results = []
        for _ in range(3):
            results.append(world.attempt(answer))
            world.advance(1)
        failure = Outcome(completed=False, error=error)
        assert results == ([Retry(2), Retry(4), failure] if unknown else [failure] * 3)
        assert world.counters.retried == (2 if unknown else 0)
        assert world.flight.attempt == (3 if unknown else 1)


def test_what_was_not_sent_is_sent_again_and_the_executor_is_unhealthy() -> None:
    with AttemptWorld(2) as world:
        world.transport.health_seconds = 1.0
        for _ in range(3):
            world.flight.attempt = 1
            assert world.attempt(NotSent("http://e: refused")) == Retry()
            assert not world.flight.ambiguous
            assert world.shown().reason == "cannot be reached at http://e: refused"
            world.advance(2.5)
        assert (world.counters.attempts_failed, world.counters.retried) == (3, 0)


@pytest.mark.parametrize("answer", [Answer(404, b"no route"), Answer(401, b"who?"), Answer(302, b"")])
def test_what_an_executor_does_not_serve_goes_to_each_of_the_others_once(answer: Answer) -> None:
    with AttemptWorld(2) as world:
        assert world.attempt(answer) == Retry()
        assert world.flight.failed_at == ("executor-0",)
        assert not world.flight.ambiguous
        world.flight.failed_at = tuple(["executor-1"])
        text = answer.body.decode() or "status 302"
        assert world.attempt(answer) == Outcome(False, f"Executor rejected task: {text}"), "there is no other one"
        assert list(world.flight.failed_at) == ["executor-1", "executor-0"]
        world.flight.failed_at = ("executor-0",)
        assert isinstance(world.attempt(answer), Outcome), "it had its turn"
        assert (world.counters.retried, world.flight.attempt) == (0, 1)


def test_an_unhealthy_executor_is_not_one_that_may_still_serve_the_task() -> None:
    with AttemptWorld(2) as world:
        world.transport.health["executor-1"] = Answer(503, b"")
        world.advance(6)
        assert world.attempt(Answer(404, b"no route")) == Outcome(False, "Executor rejected task: no route")


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        (Answer(500, b""), True),
        (Broken("reset"), True),
        (TimedOut("late"), True),
        (NotSent("no"), False),
        (Answer(429, b""), False),
        (Answer(400, b""), False),
    ],
)
def test_the_task_remembers_the_executors_that_failed_it(answer: Answer | TransportError, marked: bool) -> None:
    with AttemptWorld(2) as world:
        world.attempt(answer)
        assert world.flight.failed_at == (("executor-0",) if marked else ())


@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_task_goes_elsewhere_until_the_grace_is_over(status: int) -> None:
    with AttemptWorld(2, {"unavailableGraceSeconds": 10}) as world:
        assert world.attempt(Answer(status, b"full")) == Retry()
        assert not world.flight.ambiguous
        assert world.shown().healthy
        world.advance(11)
        assert world.attempt(Answer(status, b"full")) == Outcome(False, "Executor rejected task: full")


def test_the_grace_does_not_count_the_time_that_executors_used() -> None:
    with AttemptWorld(2, {"unavailableGraceSeconds": 10}) as world:
        world.flight.executor_seconds = 60
        world.advance(30)
        assert world.attempt(Answer(429, b"full")) == Retry()


def test_with_hold_a_refused_task_goes_elsewhere_however_long_it_takes() -> None:
    with AttemptWorld(2, {"whenUnavailable": "Hold"}) as world:
        world.advance(10_000)
        assert world.attempt(Answer(503, b"full")) == Retry()


def test_an_executor_that_refused_gets_no_task_for_a_moment() -> None:
    with AttemptWorld(1) as world:
        world.attempt(Answer(429, b"full"))
        assert not world.pool.can_reserve
        world.advance(1)
        assert world.pool.can_reserve


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(500, b"oops"), "answered 500 (text, 4 bytes)"),
        (Answer(404, b"no route"), "answered 404 (text, 8 bytes)"),
        (Answer(204, b""), "answered 204 (an empty body)"),
        (Answer(200, b"[]"), "answered 200 without a result of the task (JSON, 2 bytes)"),
        (TimedOut("http://e: 40 s"), "no answer in time at http://e: 40 s"),
    ],
)
def test_faults_of_the_executors_own_eject_it(answer: Answer | TransportError, reason: str) -> None:
    with AttemptWorld(2) as world:
        for _ in range(5):
            world.attempt(answer)
        assert world.shown().reason == f"ejected for 10 s after 5 failures in a row: {reason}"


@pytest.mark.parametrize("answer", [Answer(400, b"bad"), Answer(422, b""), TooLarge("http://e", 200, None, 8)])
def test_what_is_not_the_executors_fault_ejects_nobody(answer: Answer | TransportError) -> None:
    with AttemptWorld(2) as world:
        for _ in range(20):
            world.attempt(answer)
            world.advance(2)
        assert world.shown().healthy


def test_a_broken_connection_makes_the_executor_unhealthy_until_it_is_checked() -> None:
    with AttemptWorld(2) as world:
        world.transport.health_seconds = 1.0
        world.attempt(Broken("http://e: reset"))
        assert world.shown().reason == "broke the connection at http://e: reset"
        world.advance(1.1)
        assert world.shown().healthy


def test_an_executor_that_did_not_answer_in_time_is_checked_at_once() -> None:
    with AttemptWorld(2) as world:
        checks = world.transport.checks("executor-0")
        world.attempt(TimedOut("http://e: 40 s"))
        assert world.transport.checks("executor-0") == checks + 1


def test_the_time_of_an_attempt_counts_as_execution_whatever_comes_of_it() -> None:
    with AttemptWorld(2) as world:
        world.transport.execute_seconds = 2.0
        for answer in (Answer(200, COMPLETED), Answer(400, b""), NotSent("http://e: refused")):
            _, task = world.start_attempt(answer)
            world.advance(2)
            assert task.done()
            world.advance(1)
        assert world.flight.executor_seconds == pytest.approx(6)
        assert sum(world.counters.execution.counts) == 3


def test_a_cancelled_attempt_leaves_the_task_ambiguous_and_nobody_waiting() -> None:
    with AttemptWorld(2) as world:
        world.transport.execute_seconds = 2.0
        _, task = world.start_attempt(Answer(200, COMPLETED))
        task.cancel()
        world.advance(0.1)
        assert task.cancelled()
        assert world.flight.ambiguous
        assert world.outcomes.waiting == {}
        assert world.in_flight == 0


# --- asynchronous executors


def test_an_asynchronous_executor_keeps_the_slot_until_it_publishes_the_outcome() -> None:
    with AttemptWorld(2) as world:
        executor, task = world.start_attempt(RUNNING)
        assert executor.completes_async is True
        assert world.in_flight == 1
        assert world.flight.deadline is not None
        assert [(e["state"], e["executor"]) for e in world.journal.entries] == [("executing", "executor-0")]
        (event,) = world.journal.events
        assert event.channel == CHANNEL_RUNNING
        assert orjson.loads(event.payload) == {
            "eval_id": "a",
            "executor_id": "e",
            "container_id": "c",
            "timeout": 30,
        }
        world.advance(5)
        outcome = Outcome(True, "", COMPLETED, published=True)
        world.publish(outcome)
        assert task.result() == outcome
        assert not world.flight.ambiguous
        assert world.in_flight == 0
        assert world.counters.attempts_failed == 0
        assert world.flight.executor_seconds == pytest.approx(5, abs=0.1)


def test_nothing_says_running_after_an_outcome_that_was_published_before_the_answer() -> None:
    with AttemptWorld(2) as world:
        world.transport.execute_seconds = 1.0
        _, task = world.start_attempt(RUNNING)
        world.publish(Outcome(True, "", COMPLETED, published=True))
        assert not task.done(), "the answer is waited for: it says of which kind the executor is"
        world.advance(1)
        assert task.result() == Outcome(True, "", COMPLETED, published=True)
        assert world.journal.events == []


def test_the_journal_is_told_the_deadline_once() -> None:
    with AttemptWorld(2) as world:
        world.flight.deadline = 12345.0
        _, task = world.start_attempt(RUNNING)
        assert world.journal.entries == []
        assert world.flight.deadline == 12345.0
        task.cancel()
        world.advance(0)


@pytest.mark.parametrize("retries", [False, True])
def test_an_outcome_that_is_not_published_in_time_is_an_ambiguous_failure(retries: bool) -> None:
    with AttemptWorld(2, None, **(RETRY if retries else {})) as world:
        _, task = world.start_attempt(RUNNING)
        world.advance(39.9)
        assert not task.done()
        world.advance(0.1)
        error = "executor executor-0: no outcome of the task was published within 40 s"
        assert task.result() == (Retry(2) if retries else Outcome(completed=False, error=error))
        assert world.flight.ambiguous
        assert world.shown().healthy


@pytest.mark.parametrize("answer", [Broken("http://e: reset"), TimedOut("http://e: 40 s")])
def test_the_outcome_of_an_asynchronous_executor_counts_although_its_answer_was_lost(answer: TransportError) -> None:
    with AttemptWorld(2) as world:
        executor, task = world.start_attempt(answer)
        assert isinstance(task.result(), Outcome), "its kind is not known yet: nothing is waited for"
        world.advance(5)
        executor.completes_async = True
        _, task = world.start_attempt(answer)
        world.advance(5)
        assert not task.done()
        world.publish(Outcome(False, "killed", None, published=True))
        assert task.result() == Outcome(False, "killed", None, published=True)
        assert not world.flight.ambiguous


@pytest.mark.parametrize("answer", [Answer(500, b"oops"), NotSent("http://e: refused"), Answer(429, b"full")])
def test_an_asynchronous_executor_that_said_no_is_not_waited_for(answer: Answer | TransportError) -> None:
    with AttemptWorld(2) as world:
        permit, executor = world.take_on("executor-0")
        executor.completes_async = True
        world.do(permit.release)
        _, task = world.start_attempt(answer)
        assert task.done()


def test_a_synchronous_executor_that_became_asynchronous_is_subscribed_to_as_soon_as_it_says_so() -> None:
    with AttemptWorld(2) as world:
        world.attempt(Answer(200, COMPLETED))
        before = world.outcomes.listened
        _, task = world.start_attempt(RUNNING)
        assert world.outcomes.listened == before + 1
        world.publish(Outcome(True, "", COMPLETED, published=True))
        assert task.result() == Outcome(True, "", COMPLETED, published=True)


def test_a_known_synchronous_executor_costs_no_subscription() -> None:
    with AttemptWorld(2) as world:
        world.attempt(Answer(200, COMPLETED))
        world.transport.execute_seconds = 1.0
        _, task = world.start_attempt(Answer(200, COMPLETED))
        assert world.outcomes.waiting == {}
        world.advance(1)
        assert task.done()


# --- the logs of asynchronous executors


def logs(is_running: bool, exit_code: int | None = None, error: str = "") -> Answer:
    return Answer(200, orjson.dumps({"eval_id": "a", "error": error, "is_running": is_running, "exit_code": exit_code}))


STILL_RUNNING, NOT_KNOWN = logs(is_running=True), logs(is_running=False, error="Container not found")


def asked(world: AttemptWorld) -> list[float]:
    return [call.at for call in world.transport.calls if "/logs/" in call.url]


def test_the_logs_tell_the_outcome_whose_event_was_lost() -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([STILL_RUNNING, logs(is_running=False, exit_code=0)])
        _, task = world.start_attempt(RUNNING)
        world.advance(8.9)
        assert not task.done(), "the event of a task that has just ended is on its way"
        world.advance(0.2)
        outcome = task.result()
        assert isinstance(outcome, Outcome)
        assert (outcome.completed, outcome.published) == (True, False), "nobody has published it"
        assert orjson.loads(outcome.result or b"")["status"] == "completed"
        assert not world.flight.ambiguous
        assert world.in_flight == 0
        (call,) = {call for call in world.transport.calls if "/logs/" in call.url if call.at > 1004}
        assert (call.url, call.limit) == ("http://executor-0/logs/a", 8 * 1024 * 1024)


def test_the_event_counts_when_it_comes_after_the_logs_have_told_the_outcome() -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([logs(is_running=False, exit_code=0)])
        _, task = world.start_attempt(RUNNING)
        world.advance(4)
        world.publish(Outcome(True, "", COMPLETED, published=True))
        assert task.result() == Outcome(True, "", COMPLETED, published=True)


@pytest.mark.parametrize("retries", [False, True])
def test_a_task_that_the_executor_does_not_know_any_more_is_an_ambiguous_failure(retries: bool) -> None:
    with AttemptWorld(2, None, **(RETRY if retries else {})) as world:
        world.transport.logs = deque([NOT_KNOWN])
        _, task = world.start_attempt(RUNNING)
        world.advance(6.1)
        error = "executor executor-0: the task was killed, or the executor lost it: Container not found"
        assert task.result() == Outcome(completed=False, error=error)
        assert world.flight.ambiguous
        assert world.in_flight == 0
        assert world.shown().healthy


def test_after_a_lost_answer_the_logs_tell_whether_the_executor_has_the_task() -> None:
    with AttemptWorld(2, None, **RETRY) as world:
        permit, executor = world.take_on("executor-0")
        executor.completes_async = True
        world.do(permit.release)
        world.transport.logs = deque([NOT_KNOWN])
        _, task = world.start_attempt(Broken("http://e: reset"))
        world.advance(6.1)
        assert task.result() == Retry(2), "nobody has killed it: retry decides"


@pytest.mark.parametrize("answer", [Answer(404, b"Not Found"), Answer(200, b"<html>"), Answer(500, b"")])
def test_an_executor_without_the_call_is_asked_three_times_and_waited_for_as_ever(answer: Answer) -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([answer])
        _, task = world.start_attempt(RUNNING)
        world.advance(39.9)
        assert not task.done()
        assert len(asked(world)) == 3
        world.advance(0.2)
        assert task.done()


def test_what_does_not_answer_is_asked_again() -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([*[Broken("reset")] * 5, logs(is_running=False, exit_code=1)])
        _, task = world.start_attempt(RUNNING)
        world.advance(21.1)
        outcome = task.result()
        assert isinstance(outcome, Outcome)
        assert outcome.error == "exit code 1"


def test_one_request_at_a_time_asks_for_the_logs_and_none_after_the_event() -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([STILL_RUNNING])
        world.transport.logs_seconds = 4.0
        _, task = world.start_attempt(RUNNING)
        world.advance(11)
        assert [round(at - 1000) for at in asked(world)] == [3, 10]
        world.publish(Outcome(True, "", COMPLETED, published=True))
        assert task.done(), "it did not wait for the logs"
        world.advance(20)
        assert len(asked(world)) == 2


def test_large_logs_are_asked_for_less_often() -> None:
    with AttemptWorld(2) as world:
        large = b'{"is_running": true, "output": "%b"}' % (b"x" * 1024 * 1024)
        world.transport.logs = deque([Answer(200, large)])
        _, task = world.start_attempt(RUNNING, timeout=100)
        world.advance(50)
        assert [round(at - 1000) for at in asked(world)] == [3, 10, 17, 24, 31, 38, 45]
        world.transport.logs = deque([TooLarge("http://e", 200, None, 8 * 1024 * 1024)])
        world.advance(50)
        assert len(asked(world)) == 9
        task.cancel()
        world.advance(0)


# --- after a router's death


def resumed(world: AttemptWorld, left: float, allowed: float = 40) -> asyncio.Task[Outcome | None]:
    world.flight.executor = "executor-1"
    world.flight.ambiguous = True
    return world.loop.create_task(world.attempts.resume(world.flight, left, allowed))


def test_a_successor_takes_the_outcome_that_is_published_in_time() -> None:
    with AttemptWorld(2) as world:
        task = resumed(world, 20)
        world.advance(2)
        outcome = Outcome(True, "", COMPLETED, published=True)
        world.publish(outcome)
        assert (task.result(), world.flight.ambiguous, world.outcomes.waiting) == (outcome, False, {})


def test_a_successor_takes_the_outcome_that_the_logs_tell() -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([logs(is_running=False, exit_code=0)])
        task = resumed(world, 20)
        world.advance(6.1)
        outcome = task.result()
        assert outcome is not None
        assert (outcome.completed, outcome.published, world.flight.ambiguous) == (True, False, False)


@pytest.mark.parametrize("left", [-7200, -1e300, 0, 20, 7200])
def test_a_successor_waits_while_the_executor_says_that_the_task_runs_whatever_the_clocks_say(left: float) -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([STILL_RUNNING])
        task = resumed(world, left, allowed=40)
        world.advance(39)
        assert not task.done()
        world.advance(1.1)
        assert task.result() is None


@pytest.mark.parametrize("left", [-7200, 0, 20])
def test_a_successor_asks_at_once_and_takes_the_outcome_of_a_task_whose_deadline_may_have_passed(left: float) -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([logs(is_running=False, exit_code=0)])
        task = resumed(world, left)
        world.advance(3.1)
        outcome = task.result()
        assert outcome is not None
        assert outcome.completed
        assert len(asked(world)) == 1


@pytest.mark.parametrize(("left", "seconds"), [(-7200, 3), (0, 3), (7200, 40)])
def test_a_deadline_that_is_hours_off_is_bounded_where_the_executor_has_no_logs(left: float, seconds: float) -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([Answer(404, b"")])
        task = resumed(world, left, allowed=40)
        world.advance(seconds - 0.1)
        assert not task.done()
        world.advance(0.2)
        assert task.result() is None


@pytest.mark.parametrize(("answer", "seconds"), [(NOT_KNOWN, 6.1), (Answer(404, b""), 20)])
def test_none_is_the_outcome_that_nobody_tells(answer: Answer, seconds: float) -> None:
    with AttemptWorld(2) as world:
        world.transport.logs = deque([answer])
        task = resumed(world, 20)
        world.advance(seconds + 0.1)
        assert task.result() is None
        assert (world.flight.ambiguous, world.outcomes.waiting) == (True, {})


def test_an_executor_that_left_is_waited_for_without_being_asked() -> None:
    with AttemptWorld(2) as world:
        task = resumed(world, 20)
        world.flight.executor = "executor-7"
        world.advance(19)
        assert (asked(world), task.done()) == ([], False)
        world.publish(Outcome(True, "", COMPLETED, published=True))
        assert task.done()
