"""Who answered, and what it means: every status, and the bodies that gateways, frameworks and the queue write."""

from __future__ import annotations

import pytest

from queueworker.routing.counters import LossCause
from queueworker.routing.queue.answers import (
    ForeignAnswer,
    Reply,
    key_refused,
    read_depth,
    read_look_up,
    read_poll,
    read_report,
    read_submission,
)
from queueworker.routing.wire.task import InvalidTask

TASK = b'{"eval_id":"a","code":"x"}'
BODIES = (b"", b"<html>hi</html>", b"404 page not found", b'{"message":"no Route matched"}', b"null", TASK, b"\xff")


@pytest.mark.parametrize("answer", [(200, b"null"), (200, b""), (200, b"{}"), (204, b""), (204, b"null")])
def test_an_empty_queue_says_so(answer: tuple[int, bytes]) -> None:
    assert read_poll(*answer) is None


def test_a_task_comes_with_200_only() -> None:
    task = read_poll(200, TASK)
    assert task is not None
    assert task.eval_id == "a"
    for status in range(100, 600):
        if status not in {200, 204}:
            with pytest.raises(ForeignAnswer):
                read_poll(status, TASK)


@pytest.mark.parametrize("status", [301, 302, 400, 404, 405, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", BODIES)
def test_anything_that_is_not_the_queues_may_have_cost_a_task(status: int, body: bytes) -> None:
    with pytest.raises(ForeignAnswer) as caught:
        read_poll(status, body)
    assert caught.value.cause is LossCause.NOT_THE_QUEUES


@pytest.mark.parametrize(
    "body", [b"<html>", b"OK", b"[1]", b"1", b'"task"', b'{"message":"back soon"}', b'{"status":"ok"}', b"\xff\xfe"]
)
def test_a_200_that_is_no_task_is_somebody_elses(body: bytes) -> None:
    with pytest.raises(ForeignAnswer):
        read_poll(200, body)


def test_a_task_that_was_cut_off_before_its_id_is_unreadable() -> None:
    with pytest.raises(ForeignAnswer) as caught:
        read_poll(200, b'{"code":"print(1)","eval_')
    assert caught.value.cause is LossCause.UNREADABLE


def test_a_task_that_was_cut_off_after_its_id_can_be_reported() -> None:
    with pytest.raises(InvalidTask) as caught:
        read_poll(200, TASK[:-3])
    assert caught.value.eval_id == "a"


def test_a_refused_key_costs_no_task() -> None:
    with pytest.raises(ForeignAnswer) as caught:
        read_poll(401, b'{"detail":"wrong key"}')
    assert caught.value.cause is None


@pytest.mark.parametrize("body", [b'{"eval_id":"a"}', b'{"eval_id":"a","code":null}', b'{"code":"x"}'])
def test_half_a_task_is_the_queues_and_invalid(body: bytes) -> None:
    with pytest.raises(InvalidTask):
        read_poll(200, body)


@pytest.mark.parametrize(("completed", "word"), [(True, b"completed"), (False, b"failed")])
def test_a_report_is_taken_when_the_queue_says_so_in_its_own_words(completed: bool, word: bytes) -> None:
    assert read_report(200, b'{"status":"%b"}' % word, completed=completed) is Reply.TAKEN
    assert read_report(200, b'{"status":"not_found"}', completed=completed) is Reply.UNKNOWN_ID
    for body in (*BODIES, b'{"status":"ok"}', b'{"status":1}', b'["completed"]'):
        assert read_report(200, body, completed=completed) is Reply.NOT_NOW, body
    for status in (201, 202, 204, 301, 302, 500, 502, 503, 504, 408, 425, 429):
        assert read_report(status, b'{"status":"%b"}' % word, completed=completed) is Reply.NOT_NOW


def test_a_404_is_final_only_in_the_queues_own_words() -> None:
    assert read_report(404, b'{"detail":"Task not found"}', completed=True) is Reply.UNKNOWN_ID
    for body in (*BODIES, b'{"detail":"Not Found"}', b'{"detail":["Task not found"]}'):
        assert read_report(404, body, completed=True) is Reply.MAYBE_UNKNOWN_ID


@pytest.mark.parametrize(
    "answer", [(413, b"too large"), (414, b""), (422, b"<html>"), (431, b""), (400, b'{"detail":"no"}')]
)
def test_some_4xx_refuse_this_very_report(answer: tuple[int, bytes]) -> None:
    assert read_report(*answer, completed=True) is Reply.NEVER


@pytest.mark.parametrize("status", [400, 402, 405, 407, 409, 410, 421, 423, 451, 499])
def test_others_may_be_a_gateways_which_answers_so_to_all_reports_for_a_time(status: int) -> None:
    assert read_report(status, b"<html>", completed=True) is Reply.NOT_NOW


def test_every_status_of_a_report_means_something() -> None:
    for status in range(100, 600):
        for body in BODIES:
            assert read_report(status, body, completed=True) in Reply


@pytest.mark.parametrize("status", [401, 403])
def test_a_page_of_a_firewall_says_nothing_about_the_key(status: int) -> None:
    assert key_refused(status, b'{"detail":"wrong key"}')
    assert not key_refused(status, b"<html>Request blocked</html>")


def test_only_the_queue_tells_its_depth_and_its_tasks() -> None:
    assert read_depth(200, b'{"queued": 3, "processing": 1}') == 3
    for body in (*BODIES, b'{"queued": true}', b'{"queued": -1}', b'{"queued": "3"}', b'{"queued": 1.5}'):
        assert read_depth(200, body) is None
    assert read_depth(503, b'{"queued": 3}') is None
    assert read_look_up(200, b'{"eval_id":"a","status":"running"}') == "running"
    assert read_look_up(200, b'{"eval_id":"a","status":"completed"}') == ""
    assert read_look_up(404, b'{"detail":"Task not found"}') == ""
    for status, body in ((200, b"<html>"), (404, b"404 page not found"), (502, b""), (500, b'{"detail":"oops"}')):
        assert read_look_up(status, body) is None
    assert read_submission(200, b'{"eval_id":"a","status":"queued","position":3}') == 3
    for body in (*BODIES, b'{"status":"queued"}', b'{"position":3}', b'{"status":"ok","position":3}'):
        assert read_submission(200, body) is None
    assert read_submission(502, b'{"status":"queued","position":3}') is None


@pytest.mark.parametrize(
    ("queued", "depth"),
    [(b"0", 0), (b"9223372036854775807", 2**63 - 1), (b"9223372036854775808", None), (b"-1", None), (b"1e999", None)],
)
def test_a_depth_that_no_status_could_hold_is_not_known(queued: bytes, depth: int | None) -> None:
    assert read_depth(200, b'{"queued":%b}' % queued) == depth
