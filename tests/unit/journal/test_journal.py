"""The journal as a router uses it, on a Redis that lives in this process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from queueworker.routing.journal.event_buffer import EVENT_BYTES
from queueworker.routing.journal.failed_tasks import FailedTask
from queueworker.routing.journal.scripts import QUARANTINE_SECONDS
from queueworker.routing.limits import Limits
from queueworker.routing.snapshot import LinkReason
from tests.support.journals import BASE, QUICK, STILL, Group, Held, broken, completed, eventually, lost, pass_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

FAILED = FailedTask("a", "oops", 1, "executor-1", 1.0, "http://q", ambiguous=False, task_bytes=2, task=b"{}")


@asynccontextmanager
async def listening(group: Group) -> AsyncIterator[Callable[[int], Awaitable[list[bytes]]]]:
    """Yields what waits for so many events, and returns their payloads."""
    async with group.redis.pubsub() as listener:
        await listener.subscribe("evaluation:completed")
        await listener.get_message(timeout=1)

        async def payloads(count: int) -> list[bytes]:
            messages = [await listener.get_message(ignore_subscribe_messages=True, timeout=1) for _ in range(count)]
            return [message["data"] for message in messages if message]

        yield payloads


# --- what is written


async def test_what_was_put_is_durable_and_a_later_entry_takes_its_place(group: Group) -> None:
    one = await group.join("one")
    one.journal.put("a", b"pulled")
    one.journal.put("b", b"pulled")
    one.journal.put("a", b"executing")
    await one.journal.durable()
    assert await group.held(one) == {b"a": b"executing", b"b": b"pulled"}
    assert "a" in one.journal


async def test_who_waits_for_an_entry_does_not_wait_for_those_that_no_batch_has_room_for(group: Group) -> None:
    """Under a load of large results there always are some."""
    one = await group.join("one", limits=Limits(max_batch_bytes=100))

    async def put_more_and_more() -> None:
        for i in range(1_000_000):
            one.journal.put(f"more {i}", b"x" * 60)
            await asyncio.sleep(0)

    more = asyncio.create_task(put_more_and_more())
    for eval_id in ("a", "b", "c"):
        one.journal.put(eval_id, b"x" * 60)
        async with asyncio.timeout(5):
            await one.journal.durable(eval_id)
        assert eval_id.encode() in await group.held(one)
    more.cancel()


async def test_finishing_publishes_in_order_and_then_forgets(group: Group) -> None:
    one = await group.join("one")
    await one.put("a", entry=b"executed")
    async with listening(group) as payloads:
        one.journal.publish(completed(b"first"))
        one.journal.finish("a", completed(b"second"))
        await one.journal.durable()
        assert await payloads(2) == [b"first", b"second"]
    assert await group.held(one) == {}
    assert "a" not in one.journal


async def test_an_entry_that_finished_before_it_was_written_is_never_written(group: Group) -> None:
    one = await group.join("one")
    one.journal.put("a", b"pulled")
    one.journal.finish("a")
    await one.journal.durable()
    assert await group.held(one) == {}


async def test_a_failed_tasks_record_is_in_the_batch_that_removes_its_entry(group: Group) -> None:
    one = await group.join("one")
    await one.put("a")
    one.batches(held := Held(answered=True))
    one.journal.finish("a", completed(b"{}"), FAILED)
    await held.reached.wait()
    assert await group.held(one) == {}
    assert await group.redis.hkeys(f"{BASE}failed") == [b"a"]
    held.released.set()


async def test_a_clock_that_was_hours_ahead_does_not_have_the_newest_failed_tasks_dropped(group: Group) -> None:
    one = await group.join("one", limits=Limits(max_failed_tasks=3))
    now = 1_764_000_000.0
    for number, when in enumerate((now + 7200, now + 7201, now + 7202, now, now + 1)):
        one.journal.finish(f"t{number}", None, replace(FAILED, eval_id=f"t{number}", failed_at=when))
        await one.journal.durable()
    assert await group.redis.zrevrange(f"{BASE}failed:index", 0, -1) == [b"t4", b"t3", b"t2"]


async def test_while_redis_is_away_nothing_blocks_and_all_is_written_when_it_is_back(group: Group) -> None:
    one = await group.join("one")
    group.server.connected = False
    one.journal.put("a", b"pulled")
    await asyncio.wait_for(one.journal.durable(), 1)
    assert one.journal.link.journal.reason is LinkReason.CONNECTION_FAILED
    assert not one.journal.writable
    one.journal.put("b", b"pulled")
    one.journal.finish("a", completed(b"{}"))
    await asyncio.wait_for(one.journal.durable(), 1)
    assert one.journal.buffered_events == 1
    group.server.connected = True
    await eventually(lambda: one.journal.writable and one.journal.buffered_events == 0)
    assert await group.held(one) == {b"b": b"pulled"}
    assert (one.counters.events_published, one.counters.events_dropped) == (1, 0)


async def test_while_redis_is_away_the_oldest_events_are_dropped_above_a_bound_and_their_entries_go(
    group: Group,
) -> None:
    one = await group.join("one", limits=Limits(max_buffered_event_bytes=3 * (EVENT_BYTES + 1)))
    await one.put("0", "1", "2", "3", "4")
    group.server.connected = False
    one.journal.put("a", b"pulled")
    await one.journal.durable()
    for i in range(5):
        one.journal.finish(str(i), completed(b"%d" % i))
    assert (one.journal.buffered_events, one.counters.events_dropped) == (3, 2)
    assert one.journal.has_room, "what waits for a Redis that is away is bounded otherwise, and holds nothing up"
    one.batches(held := Held())
    group.server.connected = True
    await held.reached.wait()
    async with listening(group) as payloads:
        held.released.set()
        assert await payloads(3) == [b"2", b"3", b"4"]
    await eventually(lambda: one.journal.writable)
    assert await group.held(one) == {b"a": b"pulled"}


async def test_while_redis_is_there_no_event_is_dropped_and_there_is_no_room_for_more_tasks(group: Group) -> None:
    one = await group.join("one", limits=Limits(max_buffered_event_bytes=3 * EVENT_BYTES, max_batch_bytes=EVENT_BYTES))
    one.batches(held := Held())
    for _ in range(6):
        one.journal.publish(completed(b""))
    await held.reached.wait()
    assert (one.journal.has_room, one.room) == (False, 0)
    held.released.set()
    await one.journal.durable()
    assert (one.journal.has_room, one.room) == (True, 1)
    assert (one.counters.events_published, one.counters.events_dropped) == (6, 0)


async def test_a_redis_that_lost_everything_gets_everything_again(group: Group) -> None:
    one = await group.join("one")
    await one.put("a")
    await group.redis.flushall()
    group.now += 60
    await one.journal.lease.verify()
    await one.journal.durable()
    assert await group.held(one) == {b"a": b"pulled"}


async def test_a_lease_that_ran_out_with_nobody_to_notice_is_taken_again(group: Group) -> None:
    one = await group.join("one")
    await one.put("a")
    await group.lease_runs_out(one)
    before = one.instance
    await one.put("b")
    assert (one.instance, one.lost) == (before, [])
    assert await group.held(one) == {b"a": b"pulled", b"b": b"pulled"}
    assert one.journal.lease.until > group.now


async def test_an_entry_that_cannot_be_read_is_set_aside(group: Group) -> None:
    one = await group.join("one")
    await one.journal.takeover.quarantine("a", b"{not json")
    assert await group.redis.hgetall(f"{BASE}quarantine") == {b"a": b"{not json"}
    assert await group.redis.ttl(f"{BASE}quarantine") == QUARANTINE_SECONDS, "kept for a person, and not for ever"


# --- what dead instances left


async def test_a_dead_instances_journal_is_taken_over_whole_and_by_one_only(group: Group) -> None:
    await group.leave_dead("dead", {b"t%d" % i: b"pulled" for i in range(20)})
    one, two = await asyncio.gather(group.join("one"), group.join("two"))
    assert sorted([*one.recovered, *two.recovered]) == sorted(f"t{i}" for i in range(20))
    assert sorted(map(len, (await group.held(one), await group.held(two)))) == [0, 20]
    assert await group.held("dead") == {}
    assert await group.redis.smembers(f"{BASE}instances") == {one.instance.encode(), two.instance.encode()}


async def test_a_live_instances_journal_is_left_alone(group: Group) -> None:
    one = await group.join("one")
    await one.put("a")
    two = await group.join("two")
    assert two.recovered == {}
    assert (one.journal.lease.rivals, two.journal.lease.rivals) == (0, 1)


async def test_one_portion_follows_the_other_without_waiting_for_the_next_heartbeat(group: Group) -> None:
    await group.leave_dead("dead", {b"t%d" % i: b"pulled" for i in range(20)})
    one = await group.join("one", limits=Limits(max_takeover_bytes=1))
    await eventually(lambda: len(one.recovered) == 20)


async def test_while_what_was_taken_over_is_not_read_nothing_more_is_taken_over(group: Group) -> None:
    one = group.make("one", times=QUICK, limits=Limits(max_takeover_bytes=1))
    await group.leave_dead("dead", {b"t%d" % i: b"pulled" for i in range(3)})
    one.readings(*[broken] * 5)
    await one.journal.start()
    before = one.journal.lease.until
    group.now += 1
    await eventually(lambda: one.journal.lease.until > before)
    assert one.recovered == {}
    assert len(await group.held(one)) == 1
    await eventually(lambda: len(one.recovered) == 3)


async def test_what_a_predecessor_told_is_newer_than_what_it_left_in_redis(group: Group) -> None:
    await group.leave_dead("predecessor", {b"a": b"executing"})
    one = group.make("one", times=QUICK)
    await one.journal.start({"a": b"executed"})
    await one.journal.durable("a")
    assert one.recovered == {}
    assert await group.held(one) == {b"a": b"executed"}


async def test_what_a_heartbeat_took_over_whose_answer_was_lost_is_found(group: Group) -> None:
    one = group.make("one", times=QUICK)
    await group.leave_dead("dead", {b"a": b"pulled"})
    one.heartbeats(lost)
    await one.journal.start()
    await eventually(lambda: one.recovered == {"a": b"pulled"})


async def test_what_is_written_while_a_takeover_is_read_is_not_taken_for_a_dead_instances(group: Group) -> None:
    one = await group.join("one", times=QUICK)
    await one.put("old")
    one.readings(names := Held(), entries := Held())
    await group.leave_dead("dead", {b"a": b"pulled"})
    await names.reached.wait()
    await one.put("new")
    names.released.set()
    await entries.reached.wait()
    await one.put("newest")
    entries.released.set()
    await eventually(lambda: one.recovered)
    assert one.recovered == {"a": b"pulled"}


async def test_what_is_removed_while_a_takeover_is_read_is_not_taken_for_a_dead_instances(group: Group) -> None:
    one = await group.join("one", times=QUICK)
    await one.put("old")
    one.readings(names := Held(answered=True))
    await group.leave_dead("dead", {b"a": b"pulled"})
    await names.reached.wait()
    one.journal.finish("old", completed(b"{}"))
    await one.journal.durable()
    names.released.set()
    await eventually(lambda: one.recovered)
    assert one.recovered == {"a": b"pulled"}


async def test_a_task_that_is_in_flight_here_is_not_recovered_and_its_entry_goes_when_it_ends(group: Group) -> None:
    await group.leave_dead("dead", {b"a": b"theirs", b"b": b"theirs"})
    one = group.make("one")
    one.journal.put("a", b"ours")
    await one.journal.start()
    assert one.recovered == {"b": b"theirs"}
    one.journal.finish("a")
    one.journal.finish("b")
    await one.journal.durable()
    assert await group.held(one) == {}


async def test_a_field_that_is_no_text_is_set_aside(group: Group) -> None:
    await group.leave_dead("dead", {b"\xff\xfe": b"noise", b"a": b"pulled"})
    one = await group.join("one")
    assert one.recovered == {"a": b"pulled"}
    assert await group.redis.hgetall(f"{BASE}quarantine") == {b"\xff\xfe": b"noise"}
    assert await group.held(one) == {b"a": b"pulled"}


# --- being declared dead


async def test_one_that_was_declared_dead_goes_on_under_a_new_name_with_what_nobody_has(group: Group) -> None:
    frozen = await group.join("frozen")
    await frozen.put("seen", "done")
    before = frozen.instance
    successor = await group.declared_dead(frozen)
    frozen.journal.put("seen", b"executed")
    frozen.journal.put("new", b"pulled")
    frozen.journal.finish("done", completed(b"{}"), FAILED)
    await frozen.journal.lease.verify()
    assert frozen.lost == [{"seen"}]
    assert ("seen" in frozen.journal, "new" in frozen.journal) == (False, True)
    await frozen.journal.durable()
    assert frozen.instance != before
    assert await group.held(before) == {}
    assert await group.held(frozen) == {b"new": b"pulled"}
    assert await group.held(successor) == {b"seen": b"pulled", b"done": b"pulled"}
    assert frozen.counters.events_published == 1, "the report was made, so the event is published"
    assert await group.redis.hkeys(f"{BASE}failed") == [b"a"]
    assert frozen.journal.lease.until > group.now


@pytest.mark.parametrize("answer", ["refused", "lost", "late"])
async def test_an_entry_that_was_on_its_way_is_the_successors_if_and_only_if_it_reached_redis(
    group: Group, answer: str
) -> None:
    frozen = await group.join("frozen", times=replace(STILL, first_retry=60.0, max_retry=60.0))
    await frozen.put("seen")
    held = Held(answered=answer == "late", then=lost if answer == "lost" else None)
    frozen.batches(held)
    frozen.journal.put("under way", b"pulled")
    frozen.journal.publish(completed(b"{}"))
    await held.reached.wait()
    if answer == "lost":
        held.released.set()
        await eventually(lambda: not frozen.journal.writable)
    successor = await group.declared_dead(frozen)
    waiting = asyncio.create_task(frozen.journal.durable("under way"))
    await frozen.journal.lease.verify()
    held.released.set()
    await asyncio.wait_for(waiting, 1)
    await frozen.journal.durable()
    reached = answer != "refused"
    assert frozen.lost == [{"seen", "under way"} if reached else {"seen"}]
    assert ("under way" in frozen.journal) != reached
    assert (b"under way" in await group.held(frozen)) != reached
    assert (b"under way" in await group.held(successor)) == reached
    assert frozen.counters.events_published == 1


async def test_who_waits_for_an_entry_that_is_lost_waits_no_longer_and_others_until_theirs_is_written(
    group: Group,
) -> None:
    frozen = await group.join("frozen")
    await frozen.put("seen")
    frozen.batches(first := Held(), second := Held())
    frozen.journal.put("seen", b"executed")
    frozen.journal.put("new", b"pulled")
    await first.reached.wait()
    waiting = {eval_id: asyncio.create_task(frozen.journal.durable(eval_id)) for eval_id in ("seen", "new")}
    await asyncio.sleep(0)  # both wait
    await group.declared_dead(frozen)
    await frozen.journal.lease.verify()
    await asyncio.wait_for(waiting["seen"], 1)
    assert not waiting["new"].done()
    first.released.set()
    await second.reached.wait()
    assert not waiting["new"].done(), "the batch under the old name is refused"
    second.released.set()
    await asyncio.wait_for(waiting["new"], 1)
    assert await group.held(frozen) == {b"new": b"pulled"}


async def test_a_refused_batch_is_written_under_the_new_name_in_its_order(group: Group) -> None:
    frozen = await group.join("frozen")
    await group.declared_dead(frozen)
    frozen.batches(held := Held())
    async with listening(group) as payloads:
        frozen.journal.publish(completed(b"1"))
        frozen.journal.publish(completed(b"2"))
        await held.reached.wait()
        frozen.journal.publish(completed(b"3"))
        held.released.set()
        assert await payloads(3) == [b"1", b"2", b"3"]
    assert frozen.lost == [set()]


async def test_redis_may_go_away_between_the_news_and_the_new_lease(group: Group) -> None:
    frozen = await group.join("frozen")
    await frozen.put("seen")
    successor = await group.declared_dead(frozen)
    frozen.journal.put("new", b"pulled")

    async def answers_and_goes_away(call: object) -> object:
        answer = await call()  # type: ignore[operator]
        group.server.connected = False
        return answer

    frozen.heartbeats(answers_and_goes_away)
    await frozen.journal.lease.verify()
    assert frozen.lost == [{"seen"}]
    assert frozen.journal.lease.until < group.now
    await asyncio.wait_for(frozen.journal.durable("new"), 1)
    group.server.connected = True
    await eventually(lambda: frozen.journal.writable)
    await frozen.journal.durable()
    assert await group.held(frozen) == {b"new": b"pulled"}
    assert successor.recovered == {"seen": b"pulled"}


async def test_it_can_be_declared_dead_again(group: Group) -> None:
    frozen = await group.join("frozen")
    await frozen.put("first")
    await group.declared_dead(frozen)
    await frozen.put("second", "third")
    await group.declared_dead(frozen)
    frozen.journal.put("fourth", b"pulled")
    await frozen.journal.lease.verify()
    await frozen.journal.durable()
    assert frozen.lost == [{"first"}, {"second", "third"}]
    assert await group.held(frozen) == {b"fourth": b"pulled"}


async def test_its_own_old_journal_is_a_dead_instances_to_itself(group: Group) -> None:
    """A successor takes over some megabytes at a time, and may die before it has everything."""
    frozen = await group.join("frozen", limits=Limits(max_takeover_bytes=1))
    await frozen.put("a", "b", "c")
    await group.lease_runs_out(frozen)
    successor = group.make("successor", limits=Limits(max_takeover_bytes=1))
    successor.readings(*[broken] * 1000)
    await successor.journal.start()
    assert len(await group.held(successor)) == 1
    await frozen.journal.lease.verify()
    assert frozen.lost == [{"a", "b", "c"}]
    await group.lease_runs_out(frozen)
    third = await group.join("third")
    assert len(third.recovered) == 2


async def test_what_it_was_reading_when_it_was_declared_dead_is_the_successors(group: Group) -> None:
    frozen = group.make("frozen", times=QUICK)
    await group.leave_dead("dead", {b"a": b"pulled"})
    frozen.readings(pass_on, entries := Held(answered=True))
    starting = asyncio.create_task(frozen.journal.start())
    await entries.reached.wait()
    successor = await group.declared_dead(frozen)
    await eventually(lambda: successor.recovered == {"a": b"pulled"})
    await frozen.journal.lease.verify()
    entries.released.set()
    await starting
    assert frozen.recovered == {}
    assert "a" not in frozen.journal


async def test_while_redis_is_known_to_be_away_nobody_waits_for_the_lease(group: Group) -> None:
    one = await group.join("one")
    group.server.connected = False
    group.now += 60
    await one.journal.lease.verify()
    assert one.journal.link.journal.reason is LinkReason.CONNECTION_FAILED
    one.heartbeats(Held())
    group.server.connected = True
    await asyncio.wait_for(one.journal.lease.verify(), 1)


# --- the end


async def test_closing_gives_the_lease_up_and_keeps_what_is_not_done(group: Group) -> None:
    one = await group.join("one")
    one.journal.put("a", b"pulled")
    one.journal.put("b", b"pulled")
    one.journal.finish("b")
    assert not await one.journal.close()
    assert not await group.redis.exists(f"{BASE}lease:{one.instance}")
    assert await group.held(one) == {b"a": b"pulled"}
    two = await group.join("two")
    assert two.recovered == {"a": b"pulled"}


async def test_an_empty_journal_leaves_nothing_behind_and_may_be_closed_twice(group: Group) -> None:
    one = await group.join("one")
    await one.journal.close()
    assert not await one.journal.close()
    assert await group.redis.keys("*") == []


async def test_a_close_that_is_cancelled_still_gives_the_lease_up(group: Group) -> None:
    one = await group.join("one")
    one.batches(held := Held())
    one.journal.put("a", b"pulled")
    await held.reached.wait()
    closing = asyncio.create_task(one.journal.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not await group.redis.exists(f"{BASE}lease:{one.instance}")


async def test_a_close_waits_for_the_first_batch_after_an_outage(group: Group) -> None:
    one = await group.join("one")
    group.server.connected = False
    one.journal.publish(completed(b"{}"))
    await one.journal.durable()
    assert not one.journal.writable
    one.batches(held := Held())
    group.server.connected = True
    await held.reached.wait()
    assert not one.journal.writable, "the batch is under way, and has not come back"
    closing = asyncio.create_task(one.journal.close())
    await asyncio.sleep(0)
    assert not closing.done()
    held.released.set()
    await closing
    assert one.counters.events_published == 1


async def test_a_redis_that_forgot_the_entries_just_before_a_stop_gets_them_again(group: Group) -> None:
    one = await group.join("one")
    await one.put("a")
    await group.redis.flushall()
    await one.journal.close()
    assert await group.held(one) == {b"a": b"pulled"}


async def test_one_that_was_declared_dead_can_be_closed_and_leaves_what_nobody_has(group: Group) -> None:
    frozen = await group.join("frozen")
    await frozen.put("seen")
    await group.declared_dead(frozen)
    frozen.journal.put("new", b"pulled")
    await frozen.journal.close()
    assert frozen.lost == [{"seen"}]
    assert await group.held(frozen) == {b"new": b"pulled"}
    assert not await group.redis.exists(f"{BASE}lease:{frozen.instance}")
    third = await group.join("third")
    assert third.recovered == {"new": b"pulled"}


async def test_what_never_reached_redis_comes_back_from_a_close_and_another_journal_publishes_it_first(
    group: Group,
) -> None:
    one = await group.join("one")
    group.server.connected = False
    one.journal.publish(completed(b"1"))
    one.journal.finish("a", completed(b"2"), FAILED)
    unwritten = await one.journal.close()
    assert [event.payload for event in unwritten.events] == [b"1", b"2"]
    group.server.connected = True
    two = group.make("two")
    two.journal.publish(completed(b"3"))
    two.journal.inherit(unwritten)
    async with listening(group) as payloads:
        await two.journal.start()
        assert await payloads(3) == [b"1", b"2", b"3"]
    assert await group.redis.hkeys(f"{BASE}failed") == [b"a"]


async def test_entries_that_are_handed_over_are_removed_here(group: Group) -> None:
    one = await group.join("one")
    await one.put("a")
    one.journal.put("b", b"executing")
    assert one.journal.hand_over() == {"a": b"pulled", "b": b"executing"}
    await one.journal.close()
    assert await group.redis.keys("*") == []
