"""The stream of batches: what each answer of Redis means, and who waits for what."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.routing.counters import Counters
from queueworker.routing.journal.batch_writer import BatchWriter
from queueworker.routing.journal.event_buffer import EVENT_BYTES
from queueworker.routing.journal.lease import Instance
from queueworker.routing.journal.redis_link import RedisLink
from queueworker.routing.journal.scripts import WRITTEN
from queueworker.routing.journal.write_buffer import MAX_BREAKS, WriteBuffer, WriteWaits
from queueworker.routing.limits import JournalTimes, Limits
from queueworker.routing.snapshot import LinkReason
from tests.support.journals import completed, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OOM = b"PARTLY OOM command not allowed when used memory > 'maxmemory'."
TIMES = JournalTimes(first_retry=0.001, max_retry=0.002)
# Whoever waits for so long waits for ever.
PATIENT = JournalTimes(first_retry=3600.0, max_retry=3600.0)


@dataclass
class Call:
    keys: list[str]
    args: list[Any]
    seconds: float
    answer: asyncio.Future[Any]

    @property
    def number(self) -> int:
        return int(self.args[0])


@dataclass
class FakeRedis:
    """Each batch waits for the test to answer it."""

    calls: asyncio.Queue[Call] = field(default_factory=asyncio.Queue)
    under_way: int = 0
    there: bool = True

    def exclusive_script(self, *_: object) -> FakeRedis:
        return self

    async def connect(self, _: float) -> None:
        if not self.there:
            raise RedisConnectionError("nobody is there")

    async def run(self, keys: list[str], args: list[Any], seconds: float) -> Any:
        assert self.under_way == 0, "one batch at a time"
        self.under_way += 1
        call = Call(keys, args, seconds, asyncio.get_running_loop().create_future())
        self.calls.put_nowait(call)
        try:
            return await call.answer
        finally:
            self.under_way -= 1


@dataclass
class FakeLease:
    instance: Instance = field(default_factory=lambda: Instance("base:", "worker"))
    refusals: list[Instance] = field(default_factory=list)
    held: bool = True

    async def refused(self, instance: Instance) -> None:
        self.refusals.append(instance)


@dataclass
class Bench:
    redis: FakeRedis
    lease: FakeLease
    buffer: WriteBuffer
    link: RedisLink
    counters: Counters
    waits: WriteWaits
    writer: BatchWriter
    room: list[bool]
    task: asyncio.Task[None]

    def put(self, eval_id: str, entry: bytes = b"pulled") -> None:
        self.buffer.put(eval_id, entry)

    def publish(self, payload: bytes) -> None:
        self.buffer.publish(completed(payload))

    def wait_for(self, eval_id: str | None) -> asyncio.Task[None]:
        return asyncio.create_task(self.waits.until_written(eval_id))

    async def batch(self) -> Call:
        return await asyncio.wait_for(self.redis.calls.get(), 1)

    async def answer(self, answer: Any) -> Call:
        """Answer the next batch, or let it fail."""
        call = await self.batch()
        if isinstance(answer, Exception):
            call.answer.set_exception(answer)
        else:
            call.answer.set_result(answer)
        await eventually(lambda: self.redis.under_way == 0 or self.redis.calls.qsize())
        return call


@asynccontextmanager
async def bench(times: JournalTimes = TIMES, limits: Limits | None = None) -> AsyncIterator[Bench]:
    redis, lease, counters, room = FakeRedis(), FakeLease(), Counters(), [False]
    link = RedisLink("redis://u:secret@fake", counters, lambda: None, waits=lambda: buffer.unsettled)
    buffer = WriteBuffer(limits or Limits())
    waits = WriteWaits(buffer, link)
    writer = BatchWriter(
        *(redis, buffer, waits, lease, link, counters),  # type: ignore[arg-type]
        times=times,
        on_written=lambda: None,
        on_room=lambda: room.__setitem__(0, True),
    )
    task = asyncio.create_task(writer.run())
    yield Bench(redis, lease, buffer, link, counters, waits, writer, room, task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- the stream


async def test_what_gathers_while_one_batch_is_on_its_way_is_the_next() -> None:
    async with bench() as b:
        b.put("a")
        first = await b.batch()
        for i in range(500):
            b.put(f"t{i}")
        first.answer.set_result(WRITTEN)
        second = await b.batch()
        assert (first.args[3], second.args[3]) == (1, 500)
        assert (first.number, second.number) == (1, 2)
        second.answer.set_result(WRITTEN)
        await eventually(lambda: not b.buffer.pending)
        assert b.redis.calls.empty()


async def test_a_batch_has_the_keys_and_the_number_of_the_instance_that_it_was_made_for() -> None:
    async with bench() as b:
        first, second = b.lease.instance, b.lease.instance.next()
        b.put("a")
        call = await b.batch()
        b.lease.instance = second
        b.put("b")
        call.answer.set_result(WRITTEN)
        assert call.keys == first.batch_keys
        call = await b.batch()
        assert (call.keys, call.number) == (second.batch_keys, 1)
        assert second.id.startswith("worker:")
        assert first.id != second.id


async def test_a_large_batch_has_more_time() -> None:
    async with bench() as b:
        b.put("a")
        assert (await b.answer(WRITTEN)).seconds < 2.1
        b.publish(b"x" * 10_000_000)
        assert 11 < (await b.answer(WRITTEN)).seconds < 13


async def test_a_full_buffer_of_events_says_when_it_has_room_again() -> None:
    async with bench(limits=Limits(max_buffered_event_bytes=2 * EVENT_BYTES, max_batch_bytes=EVENT_BYTES)) as b:
        for _ in range(3):
            b.publish(b"")
        for room in (False, True):
            await b.answer(WRITTEN)
            assert b.room == [room]
        await b.answer(WRITTEN)
        assert b.counters.events_published == 3


async def test_a_heartbeat_that_passes_does_not_make_a_refused_batch_well() -> None:
    """A user who may not publish: with `Required`, each heartbeat would allow another task without an entry."""
    async with bench() as b:
        b.put("a")
        await b.answer(ResponseError("ACL failure in script: No permissions to access a channel"))
        assert b.link.journal.reason is LinkReason.AUTHENTICATION_FAILED
        b.link.succeeded()
        assert not b.link.journal.ok
        await b.answer(WRITTEN)
        assert b.link.journal.ok


async def test_a_heartbeat_makes_the_link_well_when_nothing_waits_for_a_batch() -> None:
    async with bench() as b:
        b.put("a")
        await b.answer(ResponseError("oops"))
        b.buffer.start_over({"a"})  # another instance has it
        b.link.succeeded()
        assert b.link.journal.ok


# --- what the answers mean


async def test_ok_all_of_it_is_done() -> None:
    async with bench() as b:
        b.put("a")
        b.publish(b"{}")
        await b.answer(WRITTEN)
        assert (b.link.journal.ok, b.counters.events_published, b.buffer.pending) == (True, 1, False)
        assert b.buffer.may_be_stored("a")


@pytest.mark.parametrize("answer", [b"FENCED", b"NOLEASE", b"STALE"])
async def test_refused_nothing_of_it_is_done_and_all_is_written_once_the_lease_is_renewed(answer: bytes) -> None:
    async with bench() as b:
        b.put("before")
        await b.answer(WRITTEN)
        b.put("a")
        b.publish(b"{}")
        await b.answer(answer)
        assert b.lease.refusals == [b.lease.instance]
        again = await b.answer(WRITTEN)
        assert again.args[:3] == [3, 1, "evaluation:completed"]
        assert again.args[5:8] == [1, "a", b"pulled"]
        assert b.counters.events_published == 1


async def test_refused_again_and_again_redis_is_left_alone_for_a_while() -> None:
    async with bench(PATIENT) as b:
        b.put("before")
        await b.answer(WRITTEN)
        b.put("a")
        await b.answer(b"STALE")
        await b.answer(b"STALE")
        await eventually(lambda: len(b.lease.refusals) == 2)
        assert b.redis.calls.empty()
        b.link.restored.set()
        await b.answer(WRITTEN)


async def test_a_redis_that_refuses_every_batch_though_the_lease_is_good_is_not_well() -> None:
    async with bench() as b:
        b.put("a")
        for _ in range(3):
            await b.answer(b"STALE")
            b.link.succeeded()  # the heartbeat that renews the lease
        await eventually(lambda: not b.link.journal.ok)
        assert "something else has written to the keys of the journal" in b.link.journal.message
        await b.answer(WRITTEN)
        await eventually(lambda: b.link.journal.ok)


@pytest.mark.parametrize("error", [RedisConnectionError("reset"), ResponseError("max request size exceeded")])
async def test_an_event_that_is_cut_off_each_time_holds_up_the_others_no_longer(error: Exception) -> None:
    async with bench() as b:
        b.put("large")
        await b.answer(WRITTEN)
        b.buffer.finish("large", completed(b"x" * 600_000), None)
        b.publish(b"{}")
        for _ in range(MAX_BREAKS):
            assert b.counters.events_dropped == 0
            call = await b.answer(error)
            assert call.args[3] == b"x" * 600_000
        later = await b.answer(WRITTEN)
        assert later.args[1:6] == [1, "evaluation:completed", b"{}", 1, "large"]
        assert (b.counters.events_dropped, b.counters.events_published) == (1, 1)
        await eventually(lambda: b.link.journal.ok)


@pytest.mark.parametrize("why", ["Redis is away", "the link is slow", "it is small"])
async def test_an_event_waits_however_often_its_batch_breaks_because(why: str) -> None:
    async with bench() as b:
        b.lease.held = why != "Redis is away"
        error = RedisTimeoutError("late") if why == "the link is slow" else RedisConnectionError("reset")
        b.publish(b"x" * (1_000 if why == "it is small" else 600_000))
        for _ in range(3 * MAX_BREAKS):
            await b.answer(error)
        await b.answer(WRITTEN)
        assert (b.counters.events_dropped, b.counters.events_published) == (0, 1)


async def test_out_of_memory_events_and_removals_are_done_and_entries_are_written_again() -> None:
    async with bench() as b:
        b.put("gone")
        await b.answer(WRITTEN)
        b.buffer.finish("gone", completed(b"{}"), None)
        b.put("a")
        await b.answer(OOM)
        assert (b.link.journal.reason, b.link.events.ok) == (LinkReason.CONNECTION_FAILED, True)
        assert "OOM" in b.link.journal.message
        assert b.counters.events_published == 1
        again = await b.answer(WRITTEN)
        assert again.args[1:] == [0, 0, 1, "a", b"pulled", 0]
        assert b.link.journal.ok


async def test_an_answer_that_is_lost_all_of_it_is_written_again_in_its_order() -> None:
    async with bench() as b:
        b.publish(b"1")
        call = await b.batch()
        b.publish(b"2")
        call.answer.set_exception(RedisConnectionError("lost"))
        again = await b.answer(WRITTEN)
        assert again.args[3:6:2] == [b"1", b"2"]
        assert again.number > call.number
        assert b.counters.journal_errors == 1


async def test_a_wrong_password_is_told_from_a_redis_that_is_away_and_not_shown() -> None:
    async with bench() as b:
        b.put("a")
        await b.answer(NoPermissionError("no"))
        assert b.link.journal.reason is LinkReason.AUTHENTICATION_FAILED
        assert b.link.journal.message == "Redis redis://fake: no"


async def test_while_there_is_no_connection_nothing_is_taken_from_the_buffer() -> None:
    """What a batch has taken, Redis may hold: it has to be removed again."""
    async with bench() as b:
        b.redis.there = False
        b.put("a")
        await eventually(lambda: b.counters.journal_errors > 2)
        assert not b.buffer.may_be_stored("a")
        b.redis.there = True
        await b.answer(WRITTEN)


async def test_a_batch_that_is_cancelled_goes_back_to_the_buffer() -> None:
    async with bench() as b:
        b.put("a")
        b.publish(b"{}")
        await b.batch()
        b.task.cancel()
        await asyncio.gather(b.task, return_exceptions=True)
        batch = b.buffer.take()
        assert (batch.entries, len(batch.events)) == ({"a": b"pulled"}, 1)


# --- who waits


async def test_who_waits_for_an_entry_waits_for_its_batch_and_not_for_what_came_since() -> None:
    async with bench() as b:
        b.put("a")
        waiting = b.wait_for("a")
        call = await b.batch()
        late = b.wait_for("a")
        b.put("b")
        other, everything = b.wait_for("b"), b.wait_for(None)
        assert not waiting.done()
        call.answer.set_result(WRITTEN)
        await asyncio.wait_for(asyncio.gather(waiting, late), 1)
        assert [other.done(), everything.done()] == [False, False]
        await b.answer(WRITTEN)
        await asyncio.wait_for(asyncio.gather(other, everything), 1)


async def test_who_waits_for_a_later_entry_of_an_id_waits_for_that_one() -> None:
    async with bench() as b:
        b.put("a", b"pulled")
        call = await b.batch()
        b.put("a", b"executing")
        waiting = b.wait_for("a")
        await asyncio.sleep(0)
        call.answer.set_result(WRITTEN)
        again = await b.batch()
        assert not waiting.done()
        again.answer.set_result(WRITTEN)
        await asyncio.wait_for(waiting, 1)


async def test_with_nothing_to_write_nobody_waits() -> None:
    async with bench() as b:
        await asyncio.wait_for(b.waits.until_written("a"), 1)
        await asyncio.wait_for(b.waits.until_written(None), 1)


@pytest.mark.parametrize("answer", [b"NOLEASE", b"STALE"])
async def test_who_waits_goes_on_waiting_when_a_batch_is_refused(answer: bytes) -> None:
    async with bench() as b:
        b.put("before")
        await b.answer(WRITTEN)
        b.put("a")
        waiting = b.wait_for("a")
        await b.answer(answer)
        call = await b.batch()
        assert not waiting.done()
        call.answer.set_result(WRITTEN)
        await asyncio.wait_for(waiting, 1)


async def test_while_redis_is_away_nobody_waits() -> None:
    async with bench(PATIENT) as b:
        b.put("a")
        await b.answer(RedisConnectionError("gone"))
        await asyncio.wait_for(b.waits.until_written("a"), 1)


async def test_who_gave_up_waiting_harms_nobody() -> None:
    async with bench() as b:
        b.put("a")
        given_up, waiting = b.wait_for("a"), b.wait_for("a")
        call = await b.batch()
        given_up.cancel()
        call.answer.set_result(WRITTEN)
        await asyncio.wait_for(waiting, 1)


# --- when Redis is left alone


async def test_after_a_failure_redis_is_left_alone_until_it_is_known_to_be_back() -> None:
    async with bench(PATIENT) as b:
        b.put("a")
        await b.answer(RedisConnectionError("gone"))
        b.put("b")
        await asyncio.sleep(0)
        assert b.redis.calls.empty()
        b.link.succeeded()  # a heartbeat got through
        assert (await b.answer(WRITTEN)).args[3] == 2


async def test_a_flush_tries_at_once_and_returns_when_all_is_written() -> None:
    async with bench(JournalTimes(first_retry=0.001, max_retry=3600.0, flush=0.03)) as b:
        b.put("a")
        await b.answer(RedisConnectionError("gone"))
        flushing = asyncio.create_task(b.writer.flush())
        await b.answer(RedisConnectionError("still gone"))
        call = await b.batch()
        assert not flushing.done()
        call.answer.set_result(WRITTEN)
        await asyncio.wait_for(flushing, 1)


async def test_a_slow_link_gets_more_time_for_each_try_until_a_batch_has_arrived() -> None:
    async with bench() as b:
        b.put("a", b"x" * 2_000_000)
        allowed = [(await b.answer(RedisTimeoutError("no answer"))).seconds for _ in range(5)]
        assert [round(seconds) for seconds in allowed] == [4, 8, 16, 32, 32]
        await b.answer(WRITTEN)
        b.put("b")
        assert round((await b.answer(WRITTEN)).seconds) == 2
