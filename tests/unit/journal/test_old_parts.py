"""Entries that the version before kept in parts, byte for byte as it wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queueworker.routing.journal import entries, old_parts
from queueworker.routing.limits import Limits
from tests.support.journals import QUICK, eventually, lost

if TYPE_CHECKING:
    from tests.support.journals import Group

EXECUTING = b'{"state":"executing","queue":"http://q","attempt":1,"executor":"executor-1","task":null,"parts":2}'
EXECUTED = (
    b'{"state":"executed","queue":"http://q","completed":true,"error":"","published":false,"result":null,"parts":3}'
)
TASK_PARTS = {b"\xffpart task0:a": b'{"eval_id":"a","code":"', b"\xffpart task1:a": b'1.10"}'}
RESULT_PARTS = {
    b"\xffpart result0:b": b'{"output":',
    b"\xffpart result1:b": b"1.10,",
    b"\xffpart result2:b": b'"n":1}',
}
# An executed task may still have the parts of its task beside it.
LEFT = {b"a": EXECUTING, b"b": EXECUTED, b"\xffpart task0:b": b'{"eval_id"'} | TASK_PARTS | RESULT_PARTS


async def test_they_are_taken_over_as_whole_entries_and_their_parts_are_removed(group: Group) -> None:
    await group.leave_dead("dead", LEFT)
    one = await group.join("one")
    task = entries.decode(one.recovered["a"])
    assert (task.task, task.executor) == (b'{"eval_id":"a","code":"1.10"}', "executor-1")
    outcome = entries.decode(one.recovered["b"]).outcome
    assert outcome is not None
    assert outcome.result == b'{"output":1.10,"n":1}'
    assert await group.held("dead") == {}
    assert await group.held(one) == {eval_id.encode(): entry for eval_id, entry in one.recovered.items()}


async def test_the_version_before_reads_the_joined_entry(group: Group) -> None:
    """It decodes the whole JSON, and takes the task where there are no `parts`."""
    await group.leave_dead("dead", LEFT)
    one = await group.join("one")
    assert one.recovered["a"] == (
        b'{"state":"executing","queue":"http://q","attempt":1,"executor":"executor-1",'
        b'"task":{"eval_id":"a","code":"1.10"}}'
    )


async def test_parts_go_with_their_entry_however_little_is_taken_over_at_once(group: Group) -> None:
    await group.leave_dead("dead", LEFT)
    one = await group.join("one", limits=Limits(max_takeover_bytes=1))
    assert len(one.recovered) == 1
    await eventually(lambda: len(one.recovered) == 2)
    for entry in one.recovered.values():
        assert b"parts" not in entry


async def test_parts_without_an_entry_are_forgotten(group: Group) -> None:
    await group.leave_dead("dead", TASK_PARTS | {b"\xffpart of something": b"noise"})
    one = await group.join("one")
    assert one.recovered == {}
    assert await group.held(one) == {}


async def test_an_entry_of_which_a_part_is_missing_is_left_as_it_is_and_the_other_parts_go(group: Group) -> None:
    left = {name: part for name, part in LEFT.items() if b"1:" not in name}
    await group.leave_dead("dead", left)
    one = await group.join("one")
    assert one.recovered == {"a": EXECUTING, "b": EXECUTED}
    assert await group.held(one) == {b"a": EXECUTING, b"b": EXECUTED}


async def test_a_join_whose_answer_was_lost_loses_nothing(group: Group) -> None:
    await group.leave_dead("dead", LEFT)
    one = group.make("one", times=QUICK)
    one.client.faults[old_parts.JOIN].extend([lost, lost])
    await one.journal.start()
    await eventually(lambda: len(one.recovered) == 2)
    assert entries.decode(one.recovered["a"]).task == b'{"eval_id":"a","code":"1.10"}'
    assert await group.held(one) == {eval_id.encode(): entry for eval_id, entry in one.recovered.items()}


@pytest.mark.parametrize(
    "entry",
    [b"{not json", b"[]", b'{"parts":"x"}', b'{"parts":-1}', b'{"parts":1000000000000}', b'{"state":"executing"}'],
)
async def test_a_damaged_entry_with_parts_is_left_as_it_is(group: Group, entry: bytes) -> None:
    await group.leave_dead("dead", {b"a": entry} | TASK_PARTS)
    one = await group.join("one")
    assert one.recovered == {"a": entry}
    assert await group.held(one) == {b"a": entry}
