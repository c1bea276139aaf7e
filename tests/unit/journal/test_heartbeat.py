"""What a heartbeat answers, and how much the next one may take over."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.routing.journal.lease import Fenced, Heartbeat, read_heartbeat
from queueworker.routing.journal.redis_client import ForeignAnswer
from queueworker.routing.journal.takeover_room import TakeoverRoom
from tests.support.memory import account


def test_the_answer_of_a_heartbeat_has_names_for_its_fields() -> None:
    answer = [b"OK", b" one two", 3, 4096, 7, b"allkeys-lru", [b"executor-1", 2, b"\xff", 1]]
    assert read_heartbeat(answer) == Heartbeat(
        error="",
        set_aside=["one", "two"],
        rivals=3,
        moved_bytes=4096,
        begun_by=7,
        eviction="allkeys-lru",
        rival_slots={"executor-1": 2, "\ufffd": 1},
    )


@pytest.mark.parametrize("status", [b"STALE", b"OOM command not allowed"])
def test_a_heartbeat_that_did_not_do_all_of_it_says_why(status: bytes) -> None:
    answer = read_heartbeat([status, b"", 0, 0, 0, b"", []])
    assert isinstance(answer, Heartbeat)
    assert answer.error == status.decode()


@pytest.mark.parametrize(
    "answer", [[], [None], [b"OK"], [1, None], [b"OK", b"", 0, 0, 0, b""], [b"OK", *[0] * 6], [b"OK", *[0] * 9]]
)
def test_an_answer_that_is_no_heartbeats_is_called_foreign(answer: list[Any]) -> None:
    with pytest.raises(ForeignAnswer, match="by something else than Redis"):
        read_heartbeat(answer)


def test_a_fenced_instance_is_told_which_of_its_entries_were_taken() -> None:
    assert read_heartbeat([b"FENCED", b"", b"a", b"b"]) == Fenced({"", "a", "b"})


def test_a_portion_is_read_before_the_next_one_is_moved() -> None:
    room = TakeoverRoom(100, account())
    assert room.bytes == 100
    room.answered(0)
    assert (room.bytes, room.unread.is_set()) == (100, False)
    room.answered(40)
    assert (room.bytes, room.unread.is_set()) == (0, True)
    room.read()
    assert (room.bytes, room.unread.is_set(), room.wanted.is_set()) == (100, False, False)


def test_after_a_full_portion_the_next_heartbeat_is_wanted_at_once() -> None:
    room = TakeoverRoom(100, account())
    room.answered(100)
    assert not room.wanted.is_set()
    room.read()
    assert room.wanted.is_set()


def test_a_heartbeat_without_an_answer_may_have_moved_something_until_a_later_one_was_answered() -> None:
    room = TakeoverRoom(100, account())
    room.unanswered()
    assert (room.bytes, room.unread.is_set()) == (0, False)
    room.answered(0)
    assert (room.bytes, room.unread.is_set()) == (0, True)


def test_what_another_instance_has_taken_is_not_read() -> None:
    room = TakeoverRoom(100, account())
    room.answered(100)
    room.lost()
    assert (room.bytes, room.unread.is_set(), room.wanted.is_set()) == (100, False, False)
