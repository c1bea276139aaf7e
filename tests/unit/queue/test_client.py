"""The client of one queue: what it pulls, what it reports, and whose answers it believes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from queueworker.routing.counters import Counters, LossCause
from queueworker.routing.http.transport import Broken, NotSent, TimedOut, TooLarge
from queueworker.routing.limits import Limits
from queueworker.routing.queue.client import QueueClient
from queueworker.routing.queue.reporter import DOUBTED_404S, MAX_REFUSALS
from queueworker.routing.snapshot import LinkReason
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.task import InvalidTask
from tests.support.model.virtual_time import VirtualLoop
from tests.support.scripted_transport import ScriptedTransport

if TYPE_CHECKING:
    from collections.abc import Coroutine

NEXT, STATUS = "/tasks/next", "/status"
COMPLETE, FAIL, LOOK_UP = "/tasks/a/complete", "/tasks/a/fail", "/tasks/a"
TAKEN, FAILED = (200, b'{"status":"completed"}'), (200, b'{"status":"failed"}')
GOOD_STATUS = (200, b'{"queued":0}')
DONE = Outcome(completed=True, result=b'{"status":"completed"}')
FAILURE = Outcome(completed=False, error="it failed")


class Queue:
    """A client, its scripted queue, and a virtual clock."""

    def __init__(self, **limits: Any) -> None:
        self.loop = VirtualLoop()
        self.wire = ScriptedTransport()
        self.counters = Counters()
        self.turns = 0
        self.client = QueueClient(
            *("http://queue:8081/", None, self.wire, self.counters),
            limits=Limits(**limits),
            max_body_bytes=1 << 20,
            on_turn=self._turn,
            on_link=lambda: None,
        )

    def _turn(self) -> None:
        self.turns += 1

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 0) -> Any:
        """Its result; raises when there is none after so many virtual seconds."""
        task = self.loop.create_task(work)
        self.loop.advance(seconds)
        assert task.done(), "it still waits"
        return task.result()

    def pull(self) -> Any:
        return self.run(self.client.pull(self.client.backoff.epoch))

    def start(self, eval_id: str = "a", outcome: Outcome = DONE) -> asyncio.Task[Outcome | None]:
        task = self.loop.create_task(self.client.reporter.report(eval_id, outcome, lambda: None))
        self.loop.advance(0)
        return task

    def take_others(self, report: asyncio.Task[Outcome | None]) -> None:
        """Have the queue take another report between refusals of this one, until it is refused no more."""
        for _ in range(MAX_REFUSALS):
            assert not report.done()
            self.run(self.client.reporter.report("b", DONE, lambda: None))
            self.loop.advance(31)


@pytest.fixture
def queue() -> Queue:
    return Queue()


# --- pull


def test_an_answer_that_is_too_large_ends_an_outage_as_any_other_does(queue: Queue) -> None:
    queue.wire.script(NEXT, NotSent("refused"), TooLarge("too large", 200, None, 4 << 20))
    queue.wire.script(COMPLETE, TAKEN)
    queue.pull()
    queue.loop.advance(6)
    assert queue.client.backoff.try_acquire()
    assert queue.pull() is None
    assert queue.client.backoff.healthy
    assert queue.start().result() is DONE


def test_a_task_an_empty_queue_and_a_queue_that_is_away_are_counted(queue: Queue) -> None:
    queue.wire.script(
        NEXT, (200, b'{"eval_id":"a","code":"x"}'), (200, b"null"), NotSent("refused"), Broken("cut"), TimedOut("late")
    )
    assert queue.pull().eval_id == "a"
    assert [queue.pull() for _ in range(4)] == [None] * 4
    counters = queue.counters
    assert (counters.pulled, counters.polls_empty, counters.polls_failed) == (1, 1, 3)
    assert counters.pulls_lost_no_answer == 2, "what was not sent cannot have popped a task"
    assert queue.client.link.reason is LinkReason.CONNECTION_FAILED


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((502, b"<html>"), LossCause.NOT_THE_QUEUES),
        ((504, b""), LossCause.NOT_THE_QUEUES),
        ((200, b"<html>"), LossCause.NOT_THE_QUEUES),
        ((200, b'{"message":"back soon"}'), LossCause.NOT_THE_QUEUES),
        ((200, b'{"code":"x","eval_'), LossCause.UNREADABLE),
    ],
)
def test_an_answer_of_somebody_else_is_counted_as_a_pull_that_may_be_lost(
    queue: Queue, answer: tuple[int, bytes], cause: LossCause
) -> None:
    queue.wire.script(NEXT, answer)
    assert queue.pull() is None
    assert queue.counters.pulls_lost == dict.fromkeys(LossCause, 0) | {cause: 1}
    assert queue.client.link.reason is LinkReason.INVALID_ANSWER
    assert "html" not in queue.client.link.message, "status never shows the text of a strange answer"


def test_foreign_answers_in_a_row_make_polls_rarer_and_the_queues_own_answer_ends_that(queue: Queue) -> None:
    queue.wire.script(NEXT, *[(200, b"<html>")] * 9, (200, b"null"))
    pauses = []
    for _ in range(10):
        queue.pull()
        pauses.append(queue.client.poll_pause)
    assert pauses == [0, 5, 10, 15, 20, 25, 30, 30, 30, 0]


@pytest.mark.parametrize("more", [b"1", b"NaN"])
def test_a_task_above_the_limit_is_invalid_and_can_be_reported(queue: Queue, more: bytes) -> None:
    large = b'{"eval_id":"a","code":"%b","n":%b}' % (b"x" * (1 << 20), more)
    queue.wire.script(NEXT, (200, large), TooLarge("http://queue: too large", 200, None, 4 << 20))
    with pytest.raises(InvalidTask, match="maxBodyMebibytes") as caught:
        queue.pull()
    assert caught.value.eval_id == "a"
    assert queue.pull() is None
    assert queue.counters.pulls_lost_unreadable == 1, "beyond four times the limit nothing is known of the task"


def test_a_wrong_key_is_named_and_another_key_is_tried_at_once(queue: Queue) -> None:
    queue.wire.script(NEXT, (401, b'{"detail":"wrong"}'))
    queue.pull()
    assert queue.client.link.reason is LinkReason.AUTHENTICATION_FAILED
    assert queue.client.link.message.endswith("the API key was not given")
    assert not any(queue.counters.pulls_lost.values())
    queue.wire.script(COMPLETE, (401, b"{}"), TAKEN)
    report = queue.start()
    queue.client.set_key("new")
    queue.loop.advance(0.01)
    assert report.result() is DONE


# --- report


def test_a_report_that_is_taken_is_sent_once(queue: Queue) -> None:
    queue.wire.script(COMPLETE, TAKEN)
    assert queue.start().result() is DONE
    assert queue.wire.paths() == [COMPLETE]


@pytest.mark.parametrize(
    "answer",
    [
        *((404, b"404 page not found"), (404, b"<html>"), (404, b""), (404, b'{"message":"no Route matched"}')),
        *((200, b"<html>"), (200, b""), (200, b'{"ok":true}'), (200, b'{"status":"ok"}'), (302, b"")),
        *((502, b"<html>"), (503, b""), (401, b"{}"), (403, b"<html>"), (429, b"")),
    ],
)
def test_a_report_that_somebody_else_answered_is_sent_again(queue: Queue, answer: tuple[int, bytes]) -> None:
    queue.wire.script(COMPLETE, answer, answer, TAKEN)
    queue.wire.script(STATUS, (404, b""))
    report = queue.start()
    queue.loop.advance(10)
    assert report.result() is DONE
    assert queue.wire.paths().count(COMPLETE) == 3


def test_an_unknown_id_ends_the_report_in_the_queues_own_words(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    queue.wire.script(COMPLETE, (404, b'{"detail":"Task not found"}'))
    with caplog.at_level(logging.WARNING):
        assert queue.start().result() is None
    assert "task a" in caplog.text


def test_a_foreign_404_is_believed_only_after_signs_of_the_queues_life(queue: Queue) -> None:
    queue.wire.script(COMPLETE, (404, b"nope"))
    queue.wire.script(STATUS, GOOD_STATUS)
    queue.wire.script(LOOK_UP, (404, b"nope"))
    report = queue.start()
    queue.loop.advance(60)
    assert report.result() is None
    assert queue.wire.paths().count(COMPLETE) == DOUBTED_404S


def test_a_foreign_404_is_not_believed_while_the_queue_shows_no_life(queue: Queue) -> None:
    queue.wire.script(COMPLETE, (404, b"nope"))
    queue.wire.script(STATUS, (404, b"nope"))
    report = queue.start()
    queue.loop.advance(600)
    assert not report.done()


@pytest.mark.parametrize(
    "answer", [(200, b'{"eval_id":"a","status":"running"}'), (502, b"<html>"), (429, b""), (200, b"<html>")]
)
def test_a_foreign_404_is_not_believed_while_the_queue_may_still_wait_for_the_task(
    queue: Queue, answer: tuple[int, bytes]
) -> None:
    queue.wire.script(COMPLETE, *[(404, b"nope")] * 6, TAKEN)
    queue.wire.script(STATUS, GOOD_STATUS)
    queue.wire.script(LOOK_UP, answer)
    report = queue.start()
    queue.loop.advance(600)
    assert report.result() is DONE


def test_a_result_that_the_queue_will_never_take_becomes_a_failure(queue: Queue) -> None:
    queue.wire.script(COMPLETE, (413, b"too large"))
    queue.wire.script(FAIL, FAILED)
    outcome = queue.start().result()
    assert outcome is not None
    assert not outcome.completed
    assert outcome.error == "queue refused the result with 413: too large"


@pytest.mark.parametrize("answer", [(403, b"<html>blocked</html>"), (403, b'{"error":"blocked"}'), (500, b"oops")])
def test_one_result_that_is_refused_while_others_are_taken_becomes_a_failure(
    queue: Queue, answer: tuple[int, bytes]
) -> None:
    queue.wire.script(COMPLETE, answer)
    queue.wire.script(FAIL, FAILED)
    queue.wire.script("/tasks/b/complete", TAKEN)
    report = queue.start()
    queue.take_others(report)
    outcome = report.result()
    assert outcome is not None
    assert str(answer[0]) in outcome.error


@pytest.mark.parametrize(("outcome", "path", "taken"), [(DONE, COMPLETE, TAKEN), (FAILURE, FAIL, FAILED)])
def test_refusals_that_all_reports_had_do_not_count_against_one_that_is_refused_once_more(
    queue: Queue, outcome: Outcome, path: str, taken: tuple[int, bytes]
) -> None:
    """A gateway refuses everything for two minutes, and one of its replicas does so a little longer."""
    queue.wire.script("/tasks/b/complete", *[(503, b"<html>")] * MAX_REFUSALS, TAKEN)
    queue.wire.script(path, *[(503, b"<html>")] * (MAX_REFUSALS + 1), taken)
    other, report = queue.start("b"), queue.start("a", outcome)
    queue.loop.advance(3600)
    assert other.result() is DONE
    assert report.result() is outcome
    assert queue.wire.paths().count(path) == MAX_REFUSALS + 2


@pytest.mark.parametrize("error", [Broken("reset"), TimedOut("late"), TooLarge("a page", 200, None, 65536)])
def test_a_report_that_breaks_alone_is_refused_alone_and_holds_up_nobody(queue: Queue, error: Broken) -> None:
    """What stands between may cut off one report each time: for its size, its path, or what it holds."""
    queue.wire.script(COMPLETE, error)
    queue.wire.script(FAIL, FAILED)
    queue.wire.script(STATUS, (404, b"nope"))
    queue.wire.script(NEXT, (200, b"null"))
    queue.wire.script("/tasks/b/complete", TAKEN)
    report = queue.start()
    queue.loop.advance(60)
    assert queue.client.backoff.healthy, "somebody answers at the queue's address"
    assert queue.client.link.reason is LinkReason.INVALID_ANSWER
    queue.take_others(report)
    outcome = report.result()
    assert outcome is not None
    assert outcome.error == f"queue gave no answer to the result: {error}"


def test_reports_that_break_while_nobody_answers_are_an_outage_that_one_request_finds_out(queue: Queue) -> None:
    for name in "abcd":
        queue.wire.script(f"/tasks/{name}/complete", Broken("reset"), TAKEN)
    queue.wire.script(STATUS, NotSent("refused"))
    reports = [queue.loop.create_task(queue.client.reporter.report(name, DONE, lambda: None)) for name in "abcd"]
    queue.loop.advance(1)
    assert queue.client.link.reason is LinkReason.CONNECTION_FAILED
    assert queue.client.backoff.consecutive_errors == 1
    assert queue.wire.paths().count(STATUS) == 1
    queue.loop.advance(6)
    assert [report.result() for report in reports] == [DONE] * 4


def test_results_are_kept_while_the_queue_refuses_all_of_them(queue: Queue) -> None:
    queue.wire.script(COMPLETE, *[(500, b"disk full")] * 20, TAKEN)
    report = queue.start()
    queue.loop.advance(3600)
    assert report.result() is DONE


def test_a_failure_that_is_refused_too_is_given_up_with_an_alarm(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.wire.script(COMPLETE, (413, b"too large"))
    queue.wire.script(FAIL, (413, b"too large"))
    with caplog.at_level(logging.ERROR):
        report = queue.start()
        queue.loop.advance(600)
    outcome = report.result()
    assert outcome is not None
    assert not outcome.completed
    assert "takes no report of task a" in caplog.text


def test_only_refusals_of_all_reports_stop_pulling() -> None:
    queue = Queue(max_stuck_reports=3)
    for name in "bcde":
        queue.wire.script(f"/tasks/{name}/complete", (500, b"oops"))
        queue.start(name)
    queue.wire.script(COMPLETE, TAKEN)
    queue.loop.advance(2)
    assert queue.client.reporter.all_refused
    queue.start()
    assert not queue.client.reporter.all_refused


def test_refused_reports_that_are_sent_again_still_stop_pulling() -> None:
    queue = Queue(max_stuck_reports=3)
    for name in "abc":
        queue.wire.script(f"/tasks/{name}/complete", (500, b"oops"))
        queue.start(name)
    queue.wire.seconds = 0.1
    queue.loop.advance(1.05)
    assert queue.wire.under_way == 3
    assert queue.client.reporter.all_refused


def test_reports_wait_together_while_the_queue_is_away_and_one_at_a_time_tries(queue: Queue) -> None:
    for name in "abc":
        queue.wire.script(f"/tasks/{name}/complete", NotSent("refused"), NotSent("refused"), TAKEN)
    reports = [queue.start(name) for name in "abc"]
    queue.loop.advance(4)
    assert queue.wire.paths() == [COMPLETE], "one found the queue away, and the others wait with it"
    queue.loop.advance(60)
    assert [report.result() for report in reports] == [DONE] * 3


# --- depth


def test_the_depth_is_the_queues_word_or_nothing(queue: Queue) -> None:
    queue.wire.script(STATUS, (200, b'{"queued": 7}'), (200, b"<html>"), NotSent("refused"))
    assert [queue.run(queue.client.depth()) for _ in range(3)] == [7, None, None]
