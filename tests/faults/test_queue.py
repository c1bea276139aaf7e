"""A queue that is away, hangs, freezes, forgets its tasks or changes its key, under load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.http_faults import answers, changes_key, delays, hangs, response

if TYPE_CHECKING:
    from tests.support.faults.rig import Rig


@pytest.mark.minute
async def test_a_queue_away_for_a_minute_gets_every_report_when_it_is_back(rig: Rig) -> None:
    """Mechanism: running tasks go on, and results wait; one request at a time tries, after 5, 10, 15 … 30 s."""
    await rig.start(delay=0.5)
    rig.load(1)
    await rig.progress(2)
    await rig.until(rig.running, "a task that runs")
    with rig.fault("the queue refuses connections for a minute, while tasks run"):
        await rig.queue.proxy.refuse(finish=True)
        before = sum(rig.queue.proxy.seen.values())
        await asyncio.sleep(2)
        lost = await rig.metric("pulls_lost_total")  # The pulls that were under way.
        await asyncio.sleep(58)
        assert sum(rig.queue.proxy.seen.values()) == before
        await rig.queue.proxy.restore()
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert await rig.metric("pulls_lost_total") == lost, "a pull that was refused lost nothing"


async def test_a_queue_whose_connects_get_no_answer_loses_no_task(rig: Rig) -> None:
    """Mechanism: a connect that timed out was never sent: no pull is counted as lost, and reports are sent again."""
    await rig.start()
    rig.load(0.2)
    await rig.progress(2)
    with rig.fault("connections to the queue get no answer at all for some 11 s"):
        await rig.queue.proxy.drop_connects(finish=True)
        await rig.metric("queue_consecutive_errors", 1)
        await asyncio.sleep(1)
        lost = await rig.metric("pulls_lost_total")  # The pulls that were under way.
        await rig.metric("queue_consecutive_errors", 2)
        await rig.queue.proxy.restore()
    await rig.account()
    assert await rig.metric("pulls_lost_total") == lost, "connects that timed out are counted as lost pulls"


async def test_a_queue_that_answers_500_for_a_while_gets_every_report(rig: Rig) -> None:
    """Mechanism: polls and reports are tried for ever. A pull that was answered with 500 may have cost a task."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("the queue answers 500 to everything for 5 s"):
        rig.queue.proxy.spoil(answers(response(500, b"Internal Server Error", "text/plain")))
        await asyncio.sleep(5)
        rig.queue.proxy.heal()
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_a_queue_that_is_frozen_and_goes_on_loses_no_task(rig: Rig) -> None:
    """Mechanism: a pull in flight is never cancelled: its answer comes when the queue goes on."""
    await rig.start()
    rig.load(0.1)
    await rig.progress()
    with rig.fault("SIGSTOP of the queue for 8 s, then SIGCONT"):
        rig.queue.freeze()
        await asyncio.sleep(8)
        rig.queue.thaw()
    await rig.account()
    assert await rig.metric("pulls_lost_total") == 0
    assert not rig.ledger.ids("failed")


@pytest.mark.minute
async def test_a_queue_that_hangs_on_pulls_is_given_up_on_after_a_minute_and_the_loss_is_counted(rig: Rig) -> None:
    """Mechanism: the limit of a pull, and `queueworker_pulls_lost_total`: such a pull may have popped a task."""
    await rig.start()
    rig.load(1)
    rig.submit(20, 0)
    await rig.progress(2)
    with rig.fault("the queue takes four pulls, pops a task for each, and never answers"):
        await rig.spoil(rig.queue, hangs(forwarded=True), "/tasks/next", 4)
        before = rig.queue.proxy.seen["/tasks/next"]
        await rig.until(lambda: rig.queue.proxy.seen["/tasks/next"] > before, "polling goes on", 90)
    hung = await rig.popped()
    assert hung
    await rig.account(lost=hung, lost_why="popped for pulls that were never answered", patience=90)
    assert await rig.metric("pulls_lost_total") == 4


@pytest.mark.minute
async def test_a_queue_that_hangs_on_reports_gets_them_again_after_a_minute(rig: Rig) -> None:
    """Mechanism: the limit of a report; other slots go on meanwhile."""
    await rig.start()
    rig.load(0.5)
    await rig.progress(2)
    with rig.fault("the queue takes two reports and never answers, nor acts on them"):
        await rig.spoil(rig.queue, hangs(), "/complete", 2)
        await rig.progress(2)
        hung = {request.path.split("/")[2] for request in rig.queue.proxy.spoilt}
        assert not hung & rig.ledger.ids("completed")
        await rig.until(lambda: hung <= rig.ledger.ids("completed"), "the reports were sent again", 100)
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_a_queue_that_has_forgotten_its_tasks_gets_every_report_and_routing_goes_on(rig: Rig) -> None:
    """Mechanism: the queue's own 404 ends the report; the outcome is published."""
    await rig.start(delay=1)
    rig.load(0.1)
    await rig.progress(2)
    await rig.until(rig.running, "a task that runs")
    with rig.fault("SIGKILL of the queue, which starts again with no memory of what it handed out"):
        await rig.queue.proxy.refuse(finish=True)  # else the task that it popped last might be lost
        await rig.queue.kill()
        forgotten = rig.ledger.ids("handed-out") - rig.ledger.ids("completed", "failed")
        await rig.queue.start()
    assert forgotten
    await rig.account(forgotten=forgotten)
    assert await rig.metric("reports_unknown_total") == len(forgotten)


async def test_a_queue_whose_key_changes_and_changes_back_gets_every_report(rig: Rig) -> None:
    """Mechanism: after 401 reports are sent again for ever, and no result becomes a failure."""
    await rig.start(delay=0.5, key="the-key")
    rig.load(0.1)
    await rig.progress()
    await rig.until(rig.running, "a task that runs")
    with rig.fault("the queue refuses the worker's key with 401 for 4 s, while tasks run"):
        rig.queue.proxy.spoil(changes_key("another-key"))
        await asyncio.sleep(4)
        assert {answer.status for answer in rig.queue.proxy.answers} == {401}
        rig.queue.proxy.heal()
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_a_slow_queue_loses_no_task(rig: Rig) -> None:
    """Mechanism: pulls and reports of many tasks are under way at once."""
    await rig.start()
    rig.load(0.1)
    with rig.fault("the queue needs a second for each of twenty answers"):
        await rig.spoil(rig.queue, delays(1), "/tasks", 20)
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert await rig.metric("pulls_lost_total") == 0
