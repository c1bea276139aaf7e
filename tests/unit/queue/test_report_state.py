"""What follows when the queue refuses a report."""

from __future__ import annotations

import pytest

from queueworker.routing.queue.answers import Reply
from queueworker.routing.queue.reporter import MAX_REFUSALS, Next, ReportState, after_refusal
from queueworker.routing.wire.outcome import Outcome

RESULT = Outcome(completed=True, result=b"{}")
FAILURE = Outcome(completed=False, error="oops")


@pytest.mark.parametrize("outcome", [RESULT, FAILURE])
@pytest.mark.parametrize("reply", [Reply.NOT_NOW, Reply.KEY_REFUSED, Reply.MAYBE_UNKNOWN_ID])
def test_a_refusal_that_may_pass_is_waited_out_while_no_report_is_taken(outcome: Outcome, reply: Reply) -> None:
    report = ReportState("a", outcome, taken_before=7)
    for _ in range(100):
        report.count_refusal(taken=7)
    assert after_refusal(report, reply) is Next.SEND_AGAIN


@pytest.mark.parametrize(("outcome", "then"), [(RESULT, Next.REPORT_FAILURE), (FAILURE, Next.GIVE_UP)])
def test_a_report_that_is_refused_while_others_are_taken_is_to_blame_itself(outcome: Outcome, then: Next) -> None:
    report = ReportState("a", outcome, taken_before=7)
    for taken in range(8, 7 + MAX_REFUSALS):
        report.count_refusal(taken)
        assert after_refusal(report, Reply.NOT_NOW) is Next.SEND_AGAIN
    report.count_refusal(taken=100)
    assert after_refusal(report, Reply.NOT_NOW) is then


def test_a_result_that_is_refused_for_good_becomes_a_failure_at_once_and_a_failure_is_sent_more_often() -> None:
    assert after_refusal(ReportState("a", RESULT, 0, refusals=1), Reply.NEVER) is Next.REPORT_FAILURE
    report = ReportState("a", FAILURE, 0, refusals=1)
    assert after_refusal(report, Reply.NEVER) is Next.SEND_AGAIN
    report.refusals = MAX_REFUSALS
    assert after_refusal(report, Reply.NEVER) is Next.GIVE_UP


def test_a_result_that_became_a_failure_is_counted_anew() -> None:
    report = ReportState("a", Outcome(completed=True, published=True), 0)
    for taken in range(1, 1 + MAX_REFUSALS):
        report.count_refusal(taken)
    report.become_failure("refused", taken=30)
    assert (report.outcome.completed, report.outcome.published, report.refusals) == (False, True, 0)
    report.count_refusal(taken=31)
    assert after_refusal(report, Reply.NOT_NOW) is Next.SEND_AGAIN
