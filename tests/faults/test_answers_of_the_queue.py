"""A queue whose answers do not arrive whole, or are somebody else's, under load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.http_faults import answers, half_a_chunk, halves, mislabels, resets, response, trickles

if TYPE_CHECKING:
    from tests.support.faults.proxy import Fault
    from tests.support.faults.rig import Rig

HTML = response(200, b"<html><h1>We will be back soon</h1></html>", "text/html")


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        pytest.param(halves(), "in the middle of its answer", id="half an answer"),
        pytest.param(half_a_chunk(), "in the middle of a chunk", id="half a chunk"),
        pytest.param(mislabels(+7), "after an answer that is shorter than its Content-Length", id="Content-Length"),
        pytest.param(resets(forwarded=True), "in place of the answer", id="reset"),
    ],
)
async def test_a_pull_whose_answer_is_cut_off_loses_its_task_and_is_counted(rig: Rig, fault: Fault, what: str) -> None:
    """Mechanism: `queueworker_pulls_lost_total`. No client can prevent it: the queue pops before it answers."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    rig.submit(20, 0)  # so that each pull pops a task
    with rig.fault(f"the queue ends the connection {what} to a pull, twice"):
        await rig.spoil(rig.queue, fault, "/tasks/next", 2)
    lost = await rig.popped()
    await rig.account(lost=lost, lost_why="popped into the answers that were cut off")
    assert len(lost) == await rig.metric("pulls_lost_total") == 2


async def test_a_pull_that_broke_before_the_queue_had_it_loses_nothing(rig: Rig) -> None:
    """Mechanism: it is counted, because the router cannot know."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("the queue resets the connection once a pull is written, and pops nothing"):
        await rig.spoil(rig.queue, resets(forwarded=False), "/tasks/next", 1)
    await rig.account()
    assert await rig.metric("pulls_lost_total") == 1


async def test_a_pull_whose_answer_comes_byte_by_byte_loses_nothing(rig: Rig) -> None:
    """Mechanism: a pull's limit is long: whatever arrives whole within it is a task."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("the queue answers two pulls with one byte every 20 ms"):
        await rig.spoil(rig.queue, trickles(0.02), "/tasks/next", 2)
    await rig.account()
    assert await rig.metric("pulls_lost_total") == 0


async def test_a_report_whose_answer_is_lost_is_taken_once(rig: Rig) -> None:
    """Mechanism: the report is sent again, and the queue's own 404 ends it."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("the queue takes a report, and the connection is reset in place of its answer"):
        await rig.spoil(rig.queue, resets(forwarded=True), "/complete", 1)
    again = {request.path.split("/")[2] for request in rig.queue.proxy.spoilt}
    await rig.account(told_again=again)
    assert not rig.ledger.ids("failed")
    assert [act.eval_id for act in rig.ledger.acts if act.what == "unknown"] == list(again)
    assert await rig.metric("reports_unknown_total") == 1


async def test_a_report_that_broke_before_the_queue_had_it_is_sent_again(rig: Rig) -> None:
    """Mechanism: a report is tried for ever."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("the connection to the queue is reset once a report is written, which the queue never has"):
        await rig.spoil(rig.queue, resets(forwarded=False), "/complete", 1)
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert not rig.ledger.ids("unknown")


async def test_an_html_page_in_place_of_a_task_is_counted_as_a_pull_that_may_be_lost(rig: Rig) -> None:
    """Mechanism: whatever is not the queue's own answer may have cost a task; polls pause 5, 10 … 30 s then."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("something in front of the queue answers pulls with 200 and an HTML page for 3 s"):
        rig.queue.proxy.spoil(answers(HTML), "/tasks/next")
        await asyncio.sleep(3)
        rig.queue.proxy.heal()
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert await rig.metric("pulls_lost_total") == len(rig.queue.proxy.spoilt) <= 6


@pytest.mark.parametrize("status", [404, 502])
async def test_a_report_that_a_gateway_answers_in_place_of_the_queue_is_sent_again(rig: Rig, status: int) -> None:
    """Mechanism: only the queue's own words end a report."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault(f"something in front of the queue answers {status} to six reports"):
        await rig.spoil(rig.queue, answers(response(status, b"page not found", "text/plain")), "/complete", 6)
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert await rig.metric("reports_unknown_total") == 0


async def test_a_report_that_is_answered_with_an_html_page_is_sent_again(rig: Rig) -> None:
    """Mechanism: as above."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("something in front of the queue answers six reports with 200 and an HTML page"):
        await rig.spoil(rig.queue, answers(HTML), "/complete", 6)
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_a_result_that_the_queue_refuses_for_good_is_reported_as_a_failure(rig: Rig) -> None:
    """Mechanism: after a 4xx that refuses this very report, the task fails with an error that says so."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("the queue answers 413 to two results"):
        await rig.spoil(rig.queue, answers(response(413)), "/complete", 2)
    hit = {request.path.split("/")[2] for request in rig.queue.proxy.spoilt}
    await rig.account()
    assert rig.ledger.ids("failed") == hit


async def test_an_id_handed_out_twice_while_it_is_in_flight_runs_once(rig: Rig) -> None:
    """Mechanism: a task whose id is in flight is dropped, and counted."""
    await rig.start(delay=2)
    rig.submit(1, 0)
    await rig.until(rig.running, "a task that runs")
    (eval_id,) = rig.running()
    task = b'{"eval_id":"%s","code":"print(1)","language":"python","engine":"docker","timeout":30}' % eval_id.encode()
    rig.load(0.1)
    with rig.fault("the queue hands out an id that is in flight three times more"):
        await rig.spoil(rig.queue, answers(response(200, task)), "/tasks/next", 3)
    await rig.account()
    assert await rig.metric("tasks_duplicates_total") == 3


async def test_an_id_handed_out_again_after_its_report_runs_again_and_is_reported_again(rig: Rig) -> None:
    """Mechanism: a task that is reported is forgotten; the queue alone decides what is to be done."""
    await rig.start()
    rig.submit(1, 0)
    await rig.idle()
    (eval_id,) = rig.ledger.ids("completed")
    task = b'{"eval_id":"%s","code":"print(1)","language":"python","engine":"docker","timeout":30}' % eval_id.encode()
    rig.load(0.1)
    with rig.fault("the queue hands out an id again that was reported"):
        await rig.spoil(rig.queue, answers(response(200, task)), "/tasks/next", 1)
    await rig.account(told_again={eval_id}, may_run_twice={eval_id}, twice_why="the id that was handed out again")
    assert len(rig.ledger.by_id("started")[eval_id]) == 2
