"""A router that is killed around each write of its journal: its successor finishes what the journal has.

Each case names the ids that were in no journal yet when the router died, which is what README.md says can be lost.
The account checks that these are lost, and no others.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.deaths import kill_at, left_by, watched
from tests.support.faults.http_faults import answers, hangs, response
from tests.support.faults.redis_proxy import Moment, Write

if TYPE_CHECKING:
    from tests.support.faults.proxy import Exchange
    from tests.support.faults.rig import Rig

both_moments = pytest.mark.parametrize("moment", list(Moment))


@both_moments
@pytest.mark.parametrize("write", [Write.EXECUTING, Write.EXECUTED, Write.REMOVAL])
async def test_a_router_is_killed_around_the_write_of(rig: Rig, write: Write, moment: Moment) -> None:
    """Mechanism: the journal, whose entry comes before the step that it names, and the successor's takeover."""
    await rig.start(worker=False)
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()
        with rig.fault(f"SIGKILL of the router {moment} Redis gets the write '{write}'"):
            point = way.at(write, moment, worker.process.kill)
            await kill_at(rig, worker, point)
            left = await left_by(rig, way)
        await rig.start_worker()
        await rig.account(**left.exceptions())
    runs = rig.ledger.by_id("started")
    match write, moment:
        case (Write.EXECUTING, Moment.BEFORE):
            # `pulled` is there already if the task waited for a slot or for a health check.
            assert point.ids <= left.unjournaled | left.in_state("pulled")
        case (Write.EXECUTING, Moment.AFTER) | (Write.EXECUTED, Moment.BEFORE):
            assert point.ids <= left.in_state("executing")
        case (Write.EXECUTED, Moment.AFTER):
            assert point.ids <= left.in_state("executed")
            assert all(len(runs[eval_id]) == 1 for eval_id in point.ids)
        case (Write.REMOVAL, Moment.BEFORE):
            assert point.ids <= left.taken
            assert point.ids <= rig.ledger.ids("unknown"), "the successor cannot know that the queue has the report"
        case (Write.REMOVAL, Moment.AFTER):
            assert not point.ids & left.journal.keys()
            assert not point.ids & rig.ledger.ids("unknown")


@both_moments
async def test_a_router_is_killed_around_the_write_of_pulled_for_a_task_that_an_executor_refused(
    rig: Rig, moment: Moment
) -> None:
    """Mechanism: as above. The executor never began the task, and it runs once: no journal has it as `executing`."""
    await rig.start(worker=False, executors=1, WHEN_UNAVAILABLE="Hold")
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()
        with rig.fault(f"SIGKILL of the router {moment} Redis gets the write 'pulled' of a task that was refused"):
            point = way.at(Write.PULLED, moment, worker.process.kill)
            rig.executors[0].proxy.spoil(answers(response(503)), "/execute")
            await kill_at(rig, worker, point)
            left = await left_by(rig, way)
            rig.executors[0].proxy.heal()
        await rig.start_worker()
        await rig.account(**left.exceptions())
    assert point.ids.isdisjoint(left.in_state("executed"))
    if moment is Moment.AFTER:
        assert point.ids <= left.in_state("pulled")
    runs = rig.ledger.by_id("started")
    assert all(len(runs.get(eval_id, ())) == (eval_id not in left.unjournaled) for eval_id in point.ids)


@both_moments
async def test_a_router_is_killed_around_the_write_of_pulled_for_a_task_that_waits_for_a_health_check(
    rig: Rig, moment: Moment
) -> None:
    """Mechanism: a task is in the journal before anything that takes time: the window is one write to Redis."""
    await rig.start(worker=False, executors=1, HEALTH_CHECK_PERIOD_SECONDS="600", HEALTH_CHECK_TIMEOUT_SECONDS="60")
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.submit(5)
        await rig.idle()
        await asyncio.sleep(1.2)  # the last check is too old by now
        with rig.fault(
            f"SIGKILL of the router {moment} Redis gets the write 'pulled' of a task whose executor is checked first"
        ):
            point = way.at(Write.PULLED, moment, worker.process.kill)
            rig.executors[0].proxy.spoil(hangs(), "/health")
            rig.load()
            await kill_at(rig, worker, point)
            left = await left_by(rig, way)
            rig.executors[0].proxy.heal()
        await rig.start_worker()
        await rig.account(**left.exceptions())
    assert point.ids <= (left.unjournaled if moment is Moment.BEFORE else left.in_state("pulled"))
    assert all(len(acts) == 1 for acts in rig.ledger.by_id("started").values())


async def test_a_router_is_killed_between_a_report_and_its_answer(rig: Rig) -> None:
    """Mechanism: `executed` is durable before the report, so the successor reports again and runs nothing."""
    await rig.start(worker=False)
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()

        async def kills(exchange: Exchange) -> None:
            await exchange.forward()
            worker.process.kill()
            way.cut()
            exchange.reset()

        with rig.fault("SIGKILL of the router between the queue's taking a report and its answer"):
            way.latency = 0.2  # A report that did not wait until its outcome is durable would overtake it.
            await rig.spoil(rig.queue, kills, "/complete", 1)
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
        await rig.start_worker()
        await rig.account(**left.exceptions())
    (told,) = [message.path.split("/")[2] for message in rig.queue.proxy.spoilt]
    assert told in left.taken
    assert told in rig.ledger.ids("unknown")
    assert len(rig.ledger.by_id("started")[told]) == 1


async def test_a_router_is_killed_while_it_drains(rig: Rig) -> None:
    """Mechanism: a task stays in the journal until it is reported, also during a drain."""
    await rig.start(worker=False, delay=1.5)
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load(0.5)
        await rig.until(lambda: "executing" in way.held.values(), "a task in the journal")
        with rig.fault("SIGTERM of the router, then SIGKILL while it waits for the running tasks"):
            worker.signal(signal.SIGTERM)
            await rig.until(lambda: "draining" in worker.log(), "the router drains")
            await rig.kill_worker(worker)
            left = await left_by(rig, way)
        await rig.start_worker()
        await rig.account(**left.exceptions())


async def test_a_task_that_was_executing_fails_where_recovery_is_fail(rig: Rig) -> None:
    """Mechanism: `recovery: Fail`. No task runs twice."""
    await rig.start(worker=False, RECOVERY="Fail")
    async with watched(rig) as way:
        worker = await rig.start_worker(REDIS_URL=way.redis_url)
        rig.load()
        await rig.progress()
        with rig.fault("SIGKILL of the router while tasks execute, under `recovery: Fail`"):
            await kill_at(rig, worker, way.at(Write.EXECUTING, Moment.AFTER, worker.process.kill))
            left = await left_by(rig, way)
        await rig.start_worker()
        await rig.account(**left.exceptions() | {"may_run_twice": (), "twice_why": ""})
    assert left.in_state("executing") == rig.ledger.ids("failed")
