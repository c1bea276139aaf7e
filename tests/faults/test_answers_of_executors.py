"""Executors that run their tasks and answer badly, or refuse them, under load.

The executors are real and record what they run. The proxy in front of the first one spoils its answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from tests.support.faults.http_faults import (
    answers,
    closes_after_answering,
    half_a_chunk,
    halves,
    mislabels,
    resets,
    resets_if_kept_alive,
    response,
    rewrites,
    trickles,
)

if TYPE_CHECKING:
    from tests.support.faults.proxy import Fault, Message
    from tests.support.faults.rig import Rig

MIB = 1 << 20


def _with_nan(answer: Message) -> bytes:
    """As Python's `json` writes it, though strict JSON has no NaN."""
    return response(200, answer.body.replace(b'"exit_code":0', b'"exit_code":NaN'))


def _with_output(mebibytes: int) -> Fault:
    def enlarge(answer: Message) -> bytes:
        result = orjson.loads(answer.body) | {"output": "x" * (mebibytes * MIB)}
        return response(200, orjson.dumps(result))

    return rewrites(enlarge)


async def _spoilt(rig: Rig, fault: Fault, what: str, times: int = 4) -> set[str]:
    """Spoil so many tasks of the first of two executors, too few to eject it; returns their ids."""
    rig.load()
    await rig.progress()
    with rig.fault(f"one of two executors {what}, {times} time{'s' * (times > 1)}"):
        await rig.spoil(rig.executors[0], fault, "/execute", times)
    return {orjson.loads(request.body)["eval_id"] for request in rig.executors[0].proxy.spoilt}


@pytest.mark.parametrize("status", [500, 400])
async def test_a_task_that_an_executor_answers_with_an_error_status_fails_with_its_text(rig: Rig, status: int) -> None:
    """Mechanism: a status other than 200 (and 429, 503) is the legacy worker's `Executor rejected task`."""
    await rig.start()
    hit = await _spoilt(rig, answers(response(status, b'{"detail": "broken"}')), f"answers {status}")
    await rig.account()
    assert rig.ledger.ids("failed") == hit
    assert {rig.events.errors[i] for i in hit} == {'Executor rejected task: {"detail": "broken"}'}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_task_that_an_executor_refuses_for_now_goes_to_another(rig: Rig, status: int) -> None:
    """Mechanism: 429 and 503 say that the task did not start: it goes elsewhere, and the executor cools down."""
    await rig.start()
    hit = await _spoilt(rig, answers(response(status)), f"answers {status}")
    await rig.account()
    assert hit <= rig.ledger.ids("completed")
    assert not rig.ledger.ids("failed")


async def test_tasks_that_all_executors_refuse_for_longer_than_the_grace_fail(rig: Rig) -> None:
    """Mechanism: under Fail, refusals count against `unavailableGraceSeconds`, so no task is passed on for ever."""
    await rig.start(UNAVAILABLE_GRACE_SECONDS="2")
    rig.load(0.5)
    await rig.progress(2)
    with rig.fault("all executors answer 503 until a task has failed"):
        for site in rig.executors:
            site.proxy.spoil(answers(response(503)), "/execute")
        await rig.until(lambda: rig.ledger.ids("failed"), "a task failed")
        for site in rig.executors:
            site.proxy.heal()
    await rig.account()
    assert not rig.ledger.ids("failed") & rig.ledger.ids("started")


async def test_a_result_that_is_not_json_fails_its_task(rig: Rig) -> None:
    """Mechanism: `InvalidAnswer`; the task ran and is not sent again."""
    await rig.start()
    page = response(200, b"<html><h1>It works!</h1></html>", "text/html")
    hit = await _spoilt(rig, answers(page, forwarded=True), "answers 200 with HTML")
    await rig.account()
    assert rig.ledger.ids("failed") == hit
    assert all("answered no JSON: <html>" in rig.events.errors[i] for i in hit)


async def test_a_result_with_nan_completes_its_task_and_is_published_as_json(rig: Rig) -> None:
    """Mechanism: what strict JSON refuses is read leniently, and written as JSON for all. `/capacity` has NaN too."""
    await rig.start(worker=False)
    capacity = response(200, b'{"max_concurrent": NaN, "can_accept": true}')
    rig.executors[1].proxy.spoil(answers(capacity), "/capacity")
    await rig.start_worker()
    hit = await _spoilt(rig, rewrites(_with_nan), "has NaN in its result and the other in its capacity")
    await rig.account()
    assert rig.executors[1].proxy.spoilt
    assert hit <= rig.ledger.ids("completed")
    assert not rig.ledger.ids("failed")


async def test_a_result_of_7_mib_is_reported_and_published_once_over_a_slow_link_to_redis(rig: Rig) -> None:
    """Mechanism: a batch has two seconds, one more for each megabyte in it, and more after each try that is late."""
    await rig.start()
    rig.redis_proxy.latency = 0.03  # for each 64 KiB: some 3 s for the entry, and for the event
    hit = await _spoilt(rig, _with_output(7), "has a result of 7 MiB", times=1)
    await rig.account(patience=120)
    assert hit <= rig.ledger.ids("completed")
    assert not rig.ledger.ids("failed")
    assert [eval_id for _, eval_id in rig.events.seen if eval_id in hit] == list(hit)


async def test_a_result_of_100_mib_fails_its_task_and_no_other(rig: Rig) -> None:
    """Mechanism: reading stops at `routing.maxBodyMebibytes`. The task ran, and is not sent again."""
    await rig.start(RETRY_ATTEMPTS="3")
    hit = await _spoilt(rig, _with_output(100), "has a result of 100 MiB")
    await rig.account()
    assert rig.ledger.ids("failed") == hit
    assert all("more than routing.maxBodyMebibytes allows (8 MiB)" in rig.events.errors[i] for i in hit)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        pytest.param(half_a_chunk(), "ends the connection in the middle of a chunk", id="half a chunk"),
        pytest.param(halves(), "ends the connection in the middle of its answer", id="half an answer"),
        pytest.param(mislabels(+7), "gives a Content-Length that is too long", id="Content-Length too long"),
        pytest.param(mislabels(-7), "gives a Content-Length that is too short", id="Content-Length too short"),
        pytest.param(resets(forwarded=True), "resets the connection in place of its answer", id="reset"),
    ],
)
async def test_a_task_whose_answer_is_cut_off_fails_and_is_not_run_again(rig: Rig, fault: Fault, what: str) -> None:
    """Mechanism: no whole answer after the request was written is ambiguous, and there is one attempt."""
    await rig.start()
    hit = await _spoilt(rig, fault, what)
    await rig.account()
    assert rig.ledger.ids("failed") == hit
    assert hit <= rig.ledger.ids("started")


async def test_a_task_whose_answer_was_cut_off_runs_again_where_retry_allows(rig: Rig) -> None:
    """Mechanism: `routing.retry.attempts`; the attempt's number is counted, not the time."""
    await rig.start(RETRY_ATTEMPTS="2")
    hit = await _spoilt(rig, resets(forwarded=True), "resets the connection in place of its answer", times=2)
    await rig.account(may_run_twice=hit, twice_why="the tasks whose answer was cut off: `retry.attempts` is 2")
    assert not rig.ledger.ids("failed") - hit
    assert all(len(acts) == 2 for i, acts in rig.ledger.by_id("started").items() if i in hit)


async def test_a_request_that_broke_before_the_executor_had_it_is_as_ambiguous(rig: Rig) -> None:
    """Mechanism: the router cannot know that nothing started."""
    await rig.start()
    hit = await _spoilt(rig, resets(forwarded=False), "resets the connection once the request is written")
    await rig.account()
    assert rig.ledger.ids("failed") == hit
    assert not hit & rig.ledger.ids("started")


async def test_connections_closed_just_as_they_are_used_cost_a_retry_and_no_task(rig: Rig) -> None:
    """Mechanism: `routing.retry`, because a connection that ends as its next request arrives is ambiguous."""
    await rig.start(RETRY_ATTEMPTS="3")
    hit = await _spoilt(rig, resets_if_kept_alive(), "resets a kept connection as the next request arrives")
    await rig.account()
    assert hit <= rig.ledger.ids("completed")
    assert not rig.ledger.ids("failed")


async def test_connections_closed_after_each_answer_fail_no_task(rig: Rig) -> None:
    """Mechanism: a connection that its peer has closed is not written to."""
    await rig.start(slots=1, delay=0.3)
    hit = await _spoilt(rig, closes_after_answering(), "closes its connection after each answer, and does not say so")
    await rig.account()
    assert hit <= rig.ledger.ids("completed")
    assert not rig.ledger.ids("failed")


async def test_an_answer_of_one_byte_a_second_fails_its_task_at_its_timeout(rig: Rig) -> None:
    """Mechanism: the limit is for the whole exchange, not for the first byte or between two of them."""
    await rig.start()
    rig.load(0.2, timeout=1)
    await rig.progress()
    with rig.fault("one of two executors answers with one byte a second, twice"):
        await rig.spoil(rig.executors[0], trickles(), "/execute", 2)
        hit = {orjson.loads(request.body)["eval_id"] for request in rig.executors[0].proxy.spoilt}
        await rig.until(lambda: hit <= rig.ledger.ids("failed"), "they failed")
    await rig.account()
    assert rig.ledger.ids("failed") == hit
