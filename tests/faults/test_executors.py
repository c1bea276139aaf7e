"""Executors that die, freeze, go away and come back, under load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.http_faults import delays
from tests.support.faults.proxy import HttpProxy
from tests.support.worker_processes import can_have_hosts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faults.rig import Rig

UNAVAILABLE = "No healthy executors available"


async def test_an_executor_killed_mid_task_fails_its_tasks_and_the_other_goes_on(rig: Rig) -> None:
    """Mechanism: a connection that broke after the request was written is ambiguous, and is not sent again."""
    await rig.start(delay=1)
    rig.load(0.4)
    await rig.progress()
    await rig.until(lambda: rig.amid_on("executor-1"), "a task on executor-1")
    with rig.fault("SIGKILL of one of two executors while it runs tasks; it stays dead"):
        await rig.executors[0].kill()
    await rig.account()
    assert 1 <= len(rig.ledger.ids("failed")) <= 2


async def test_an_executor_killed_mid_task_has_its_tasks_run_again_where_retry_allows(rig: Rig) -> None:
    """Mechanism: `routing.retry.attempts`."""
    await rig.start(delay=0.5, RETRY_ATTEMPTS="2")
    rig.load(0.2)
    await rig.progress()
    await rig.until(lambda: rig.amid_on("executor-1"), "a task on executor-1")
    with rig.fault("SIGKILL of one of two executors while it runs tasks; it comes back"):
        hit = rig.running_on("executor-1")
        await rig.executors[0].kill()
        await rig.executors[0].start()
    await rig.account(may_run_twice=hit, twice_why="the tasks that the killed executor ran: `retry.attempts` is 2")
    assert not rig.ledger.ids("failed")


async def test_an_executor_frozen_mid_task_finishes_its_tasks_once_when_it_goes_on(rig: Rig) -> None:
    """Mechanism: health checks that time out at an executor at work take no task away from it, and give it none."""
    await rig.start(delay=0.5)
    rig.load(0.2)
    await rig.until(lambda: rig.amid_on("executor-1"), "a task on executor-1")
    with rig.fault("SIGSTOP of one of two executors for 10 s, then SIGCONT"):
        rig.executors[0].freeze()
        await asyncio.sleep(10)
        assert (await rig.status())["executors"]["healthy"] == 2, "it is at work"
        rig.executors[0].thaw()
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_an_executor_frozen_for_good_fails_its_tasks_at_their_timeout(rig: Rig) -> None:
    """Mechanism: a task's timeout and the margin after it bound the wait for the executor's answer."""
    await rig.start(delay=0.5)
    rig.load(0.2, timeout=1)
    await rig.until(lambda: rig.amid_on("executor-1"), "a task on executor-1")
    with rig.fault("SIGSTOP of one of two executors while it runs tasks of a timeout of 1 s"):
        hit = rig.amid_on("executor-1")
        assert hit
        rig.executors[0].freeze()
        await rig.until(lambda: hit <= rig.ledger.ids("failed"), "its tasks failed")
    await rig.account()


async def test_a_slow_executor_gets_fewer_tasks_and_fails_none(rig: Rig) -> None:
    """Mechanism: a slot stays taken until its task ends."""
    await rig.start()
    rig.load()
    with rig.fault("one of two executors needs 1.5 s longer for each task"):
        await rig.spoil(rig.executors[0], delays(1.5), "/execute", 4)
    await rig.account()
    assert not rig.ledger.ids("failed")
    assert not rig.ledger.ids("refused"), "an executor was given more than its slots"


async def test_an_executor_that_refuses_connections_fails_no_task(rig: Rig) -> None:
    """Mechanism: a task that provably was not sent goes to the next executor, and the first one is unhealthy.

    Health checks are too rare to help.
    """
    await rig.start(delay=0.05, HEALTH_CHECK_MAX_AGE_SECONDS="60", HEALTH_CHECK_PERIOD_SECONDS="60")
    rig.submit(20)
    await rig.idle()
    with rig.fault("one of two idle executors refuses connections for 3 s"):
        await rig.executors[0].proxy.refuse()
        rig.load()
        await rig.progress(40)
        await rig.metric("routing_attempts_failed_total", 1)
        await rig.executors[0].proxy.restore()
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_an_executor_whose_connects_get_no_answer_fails_no_task(rig: Rig) -> None:
    """Mechanism: a connect that timed out was never sent, and goes to the next executor. Health checks do not help."""
    await rig.start(delay=0.05, HEALTH_CHECK_MAX_AGE_SECONDS="60", HEALTH_CHECK_PERIOD_SECONDS="60")
    rig.submit(20)
    await rig.idle()
    with rig.fault("connections to one of two idle executors get no answer at all for some 5 s"):
        await rig.executors[0].proxy.drop_connects()
        rig.load()
        await rig.metric("routing_attempts_failed_total", 1)
        await rig.executors[0].proxy.restore()
    await rig.account()
    assert not rig.ledger.ids("failed")


async def test_an_executor_that_fell_silent_while_it_was_idle_gets_no_task(rig: Rig) -> None:
    """Mechanism: no task goes to an executor whose last successful health check is older than `maxAgeSeconds`.

    Connections to it are open and dead, so that nothing but the check's limit can tell.
    """
    await rig.start(delay=0.05)
    rig.submit(20)
    await rig.idle()
    with rig.fault("a black hole in front of an idle executor for 5 s: connections stay open, and nothing passes"):
        rig.executors[0].proxy.swallow()
        await asyncio.sleep(1.5)  # Its last check is too old by now, and the next periodic one is not due.
        rig.load()
        await asyncio.sleep(3.5)
        await rig.executors[0].proxy.restore()
    await rig.account()
    assert not rig.ledger.ids("failed")


@pytest.mark.minute
async def test_tasks_that_were_pulled_fail_after_the_grace_while_all_executors_are_away(rig: Rig) -> None:
    """Mechanism: `whenUnavailable: Fail` and its grace; nothing is pulled while no executor is healthy."""
    await rig.start(UNAVAILABLE_GRACE_SECONDS="5")
    rig.queue.proxy.latency = 0.3  # a pull is always under way
    rig.submit(20, 0)
    rig.load(1)
    await rig.progress()
    with rig.fault("all executors refuse connections for a minute, under `whenUnavailable: Fail`"):
        for site in rig.executors:
            await site.proxy.refuse()
        await asyncio.sleep(15)
        rig.queue.proxy.latency = 0
        pulled = rig.ledger.ids("handed-out")
        await asyncio.sleep(45)
        assert rig.ledger.ids("handed-out") == pulled, "pulled while no executor could take a task"
        assert pulled == rig.ledger.ids("completed", "failed"), "what was pulled was not failed after the grace"
        failed = rig.ledger.ids("failed")
        unrun = failed - rig.ledger.ids("started")
        assert unrun, "no pull was under way"
        assert {rig.events.errors[i] for i in unrun} == {UNAVAILABLE}
        for site in rig.executors:
            await site.proxy.restore()
    await rig.account()
    assert rig.ledger.ids("failed") == failed


@pytest.mark.minute
async def test_tasks_that_were_pulled_are_held_while_all_executors_are_away(rig: Rig) -> None:
    """Mechanism: `whenUnavailable: Hold`."""
    await rig.start(WHEN_UNAVAILABLE="Hold", UNAVAILABLE_GRACE_SECONDS="5")
    rig.queue.proxy.latency = 0.3
    rig.submit(20, 0)
    rig.load(1)
    await rig.progress()
    with rig.fault("all executors refuse connections for a minute, under `whenUnavailable: Hold`"):
        for site in rig.executors:
            await site.proxy.refuse()
        await asyncio.sleep(60)
        rig.queue.proxy.latency = 0
        held = rig.ledger.ids("handed-out") - rig.ledger.ids("completed", "failed")
        assert held, "no pull was under way"
        for site in rig.executors:
            await site.proxy.restore()
    await rig.account()
    assert held <= rig.ledger.ids("completed")
    assert len(rig.ledger.ids("failed")) <= 4, "more than the slots that were running a task"


@pytest.mark.skipif(not can_have_hosts(), reason="no process may have its own /etc/hosts here")
async def test_an_executor_whose_name_stops_resolving_is_found_again_at_another_address(
    rig: Rig, tmp_path: Path
) -> None:
    """Mechanism: a name is resolved for each connection, and one that does not resolve was never sent."""
    await rig.start(executors=1, delay=0.05, worker=False, WHEN_UNAVAILABLE="Hold")
    site, hosts = rig.executors[0], tmp_path / "hosts"
    elsewhere = HttpProxy(site.proxy.upstream)
    elsewhere.port = site.proxy.port
    hosts.write_text(f"127.0.0.1 localhost\n{site.proxy.host} executor.test\n")
    await rig.start_worker(hosts, EXECUTOR_ENDPOINTS=f"http://executor.test:{site.proxy.port}")
    rig.load()
    await rig.progress()
    async with elsewhere:
        with rig.fault("the executor's name stops resolving until it is found unhealthy, then names another address"):
            hosts.write_text("127.0.0.1 localhost\n")
            await site.proxy.refuse()
            await rig.healthy(0)
            hosts.write_text(f"127.0.0.1 localhost\n{elsewhere.host} executor.test\n")
        await rig.account()
    assert len(rig.ledger.ids("failed")) <= 2, "more than the slots that were running a task"
    assert elsewhere.seen["/execute"]
