"""The journal's scripts and its bookkeeping, on a Redis that lives in this process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from queueworker.routing.counters import Counters
from queueworker.routing.journal import journal as journal_module
from queueworker.routing.journal.journal import Journal
from queueworker.routing.snapshot import LinkReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

BASE = "queueworker:{ns/legacy}:"


class FakeClient(fakeredis.FakeAsyncRedis):
    def exclusive_script(self, text: str, timeout: float) -> Any:
        del timeout
        return self.register_script(text)


@dataclass
class Bench:
    """Journals of one group on one Redis, and what they told."""

    server: fakeredis.FakeServer = field(default_factory=fakeredis.FakeServer)
    journals: list[Journal] = field(default_factory=list)
    recovered: dict[str, bytes] = field(default_factory=dict)
    unseen: dict[str, bytes] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.redis = fakeredis.FakeAsyncRedis(server=self.server)

    async def journal(self, instance: str) -> Journal:
        made = Journal(
            "redis://fake",
            "ns/legacy",
            instance,
            Counters(),
            clock=lambda: self.now,
            on_recovered=lambda _, found: self.recovered.update(found),
            on_fenced=lambda _, unseen: self.unseen.update(unseen),
            on_link=lambda: None,
            connect=lambda *_, **__: FakeClient(server=self.server),  # type: ignore[arg-type]
        )
        await made.start()
        self.journals.append(made)
        return made

    async def held(self, instance: str) -> dict[bytes, bytes]:
        held: dict[bytes, bytes] = await self.redis.hgetall(f"{BASE}journal:{instance}")  # type: ignore[assignment]
        return held

    async def dies(self, instance: str) -> None:
        """Its lease runs out."""
        await self.redis.delete(f"{BASE}lease:{instance}")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.server.connected = True
    for journal in bench.journals:
        await journal.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_what_was_put_is_durable_and_a_later_entry_takes_its_place(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled")
    journal.put("b", b"pulled")
    journal.put("a", b"executing")
    await journal.durable()
    assert await bench.held("one:1") == {b"a": b"executing", b"b": b"pulled"}
    assert "a" in journal


async def test_many_entries_of_one_moment_go_in_one_batch(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    before = journal._number
    for i in range(500):
        journal.put(f"t{i}", b"pulled")
    await asyncio.gather(*(journal.durable() for _ in range(10)))
    assert journal._number - before <= 2
    assert len(await bench.held("one:1")) == 500


async def test_who_waits_for_an_entry_does_not_wait_for_those_that_no_batch_has_room_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a load of large results there always are some."""
    monkeypatch.setattr(journal_module, "MAX_BATCH_BYTES", 100)
    journal = await bench.journal("one:1")

    async def put_more_and_more() -> None:
        for i in range(1_000_000):
            journal.put(f"more {i}", b"x" * 60)
            await asyncio.sleep(0)

    more = asyncio.create_task(put_more_and_more())
    try:
        for eval_id in ("a", "b", "c"):
            journal.put(eval_id, b"x" * 60)
            async with asyncio.timeout(5):
                await journal.durable(eval_id)
            assert eval_id.encode() in await bench.held("one:1")
        assert journal._sets
    finally:
        more.cancel()


PARTS = {"task0": memoryview(b"first"), "task1": memoryview(b"second")}
HELD_PARTS = {b"\xffpart task0:a": b"first", b"\xffpart task1:a": b"second"}


async def test_parts_are_written_once_and_before_their_entry_and_go_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_BATCH_BYTES", 1)
    journal = await bench.journal("one:1")
    before = journal._number
    journal.put("a", b"pulled")
    journal.put("a", b"pulled", PARTS)
    await journal.durable("a")
    assert await bench.held("one:1") == HELD_PARTS | {b"a": b"pulled"}
    assert journal._number - before == 3
    journal.put("a", b"executing", PARTS)
    await journal.durable("a")
    assert await bench.held("one:1") == HELD_PARTS | {b"a": b"executing"}
    assert journal._number - before == 4
    journal.finish("a")
    await journal.durable()
    assert await bench.held("one:1") == {}
    assert journal.parts("a") == {}


async def test_a_new_task_of_an_id_has_parts_of_its_own(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled", PARTS)
    await journal.durable("a")
    journal.put("a", b"pulled", {"task0": memoryview(b"other")})
    await journal.durable("a")
    assert (await bench.held("one:1"))[b"\xffpart task0:a"] == b"other"
    journal.finish("a")
    await journal.durable()
    assert await bench.held("one:1") == {}


async def test_parts_are_taken_over_with_their_entry_and_those_without_one_are_forgotten(bench: Bench) -> None:
    dead = await bench.journal("dead:1")
    dead.put("a", b"pulled", PARTS)
    await dead.durable("a")
    await bench.redis.hset(f"{BASE}journal:dead:1", b"\xffpart task0:lost", b"part")
    await bench.dies("dead:1")
    heir = await bench.journal("heir:1")
    assert bench.recovered == {"a": b"pulled"}
    assert heir.parts("a") == {name: bytes(part) for name, part in PARTS.items()}
    await heir.durable()
    assert await bench.held("heir:1") == HELD_PARTS | {b"a": b"pulled"}
    await dead.ask()
    assert bench.unseen == {}
    heir.finish("a")
    await heir.durable()
    assert await bench.held("heir:1") == {}


async def test_parts_are_written_again_when_redis_has_forgotten_them(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled", PARTS)
    await journal.durable("a")
    await bench.redis.flushall()
    bench.now += 60
    await journal.ask()
    await journal.durable()
    assert await bench.held("one:1") == HELD_PARTS | {b"a": b"pulled"}


async def test_finishing_publishes_and_then_forgets(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    async with bench.redis.pubsub() as listener:
        await listener.subscribe("evaluation:completed")
        await listener.get_message(timeout=1)
        journal.put("a", b"executed")
        await journal.durable()
        journal.publish("evaluation:completed", b"first")
        journal.finish("a", ("evaluation:completed", b"second"))
        await journal.durable()
        got = [await listener.get_message(ignore_subscribe_messages=True, timeout=1) for _ in range(2)]
    assert [message["data"] for message in got if message] == [b"first", b"second"]
    assert await bench.held("one:1") == {}
    assert "a" not in journal


async def test_an_entry_that_finished_before_it_was_written_is_never_written(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled")
    journal.finish("a")
    await journal.durable()
    assert await bench.held("one:1") == {}


async def test_a_dead_instances_journal_is_taken_over_whole_and_by_one_only(bench: Bench) -> None:
    dead = await bench.journal("dead:1")
    for i in range(20):
        dead.put(f"t{i}", b"pulled")
    await dead.durable()
    await bench.dies("dead:1")
    await asyncio.gather(bench.journal("one:1"), bench.journal("two:1"))
    assert len(bench.recovered) == 20
    one, two = await bench.held("one:1"), await bench.held("two:1")
    assert sorted(map(len, (one, two))) == [0, 20]
    assert await bench.held("dead:1") == {}
    assert await bench.redis.smembers(f"{BASE}instances") == {b"one:1", b"two:1"}


async def test_what_a_dead_instance_left_is_taken_over_some_at_a_time_and_parts_with_their_entry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "TAKE_BYTES", 1)
    monkeypatch.setattr(Journal, "_beat_for_ever", lambda _: asyncio.Event().wait())
    dead = await bench.journal("dead:1")
    for i in range(4):
        dead.put(f"t{i}", b"executed", {"result0": b"x" * 10, "result1": b"y" * 10})
    await dead.durable()
    await bench.dies("dead:1")
    one = await bench.journal("one:1")
    assert len(bench.recovered) == 1
    (first,) = bench.recovered
    assert one.parts(first) == {"result0": b"x" * 10, "result1": b"y" * 10}
    assert len(await bench.held("one:1")) == 3
    assert len(await bench.held("dead:1")) == 9
    await dead._beat()
    assert dead.fenced
    assert bench.unseen == {}, "what is not taken over yet is not its own any more"

    for _ in range(3):
        await one._beat()
    assert all(one.parts(f"t{i}") == {"result0": b"x" * 10, "result1": b"y" * 10} for i in range(4))
    assert await bench.held("dead:1") == {}
    assert await bench.redis.smembers(f"{BASE}instances") == {b"one:1"}


async def test_one_beat_follows_the_other_while_there_is_more_to_take_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "TAKE_BYTES", 1)
    dead = await bench.journal("dead:1")
    for i in range(20):
        dead.put(f"t{i}", b"pulled")
    await dead.durable()
    await bench.dies("dead:1")
    monkeypatch.setattr(journal_module, "BEAT_SECONDS", 3600)
    await bench.journal("one:1")

    async def all_taken() -> bool:
        return len(bench.recovered) == 20

    await until(all_taken)


async def test_while_an_answer_to_a_beat_is_missing_nothing_more_is_taken_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken over with it has to be found first, and be no more than one answer holds."""
    monkeypatch.setattr(journal_module, "TAKE_BYTES", 1)
    one = await bench.journal("one:1")
    dead = await bench.journal("dead:1")
    for i in range(3):
        dead.put(f"t{i}", b"pulled")
    await dead.durable()
    await bench.dies("dead:1")
    beat = one._beat_script

    async def lost(**options: Any) -> None:
        await beat(**options)
        raise RedisConnectionError("the answer was lost")

    monkeypatch.setattr(one, "_beat_script", lost)
    await one._beat()
    assert len(await bench.held("one:1")) == 1
    await one._beat()
    assert len(await bench.held("one:1")) == 1
    assert bench.recovered == {}
    monkeypatch.setattr(one, "_beat_script", beat)
    await one._beat()
    assert len(bench.recovered) == 1
    await one._beat()
    await one._beat()
    assert len(bench.recovered) == 3


async def test_a_live_instances_journal_is_left_alone(bench: Bench) -> None:
    first = await bench.journal("first:1")
    first.put("a", b"pulled")
    await first.durable()
    await bench.journal("second:1")
    assert bench.recovered == {}


async def test_an_instance_that_was_declared_dead_is_refused_and_told_what_nobody_saw(bench: Bench) -> None:
    frozen = await bench.journal("frozen:1")
    frozen.put("seen", b"pulled")
    await frozen.durable()
    await bench.dies("frozen:1")
    await bench.journal("successor:1")
    frozen.put("seen", b"executed")
    frozen.put("new", b"pulled")
    await frozen.durable()
    assert frozen.fenced
    assert bench.unseen == {"new": b"pulled"}
    assert await bench.held("successor:1") == {b"seen": b"pulled"}
    assert await bench.held("frozen:1") == {}
    await asyncio.wait_for(frozen.durable(), 1)


async def test_a_lease_that_ran_out_with_nobody_to_notice_is_taken_again(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled")
    await journal.durable()
    await bench.dies("one:1")
    journal.put("b", b"pulled")
    await journal.durable()
    assert not journal.fenced
    assert await bench.held("one:1") == {b"a": b"pulled", b"b": b"pulled"}


async def test_a_redis_that_lost_everything_gets_everything_again(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled")
    await journal.durable()
    await bench.redis.flushall()
    await journal._beat()
    await journal.durable()
    assert await bench.held("one:1") == {b"a": b"pulled"}


async def test_while_redis_is_away_nothing_blocks_and_all_is_written_when_it_is_back(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    bench.server.connected = False
    journal.put("a", b"pulled")
    await asyncio.wait_for(journal.durable(), 1)
    assert journal.link.reason is LinkReason.CONNECTION_FAILED
    assert not journal.writable
    journal.put("b", b"pulled")
    journal.finish("a", ("evaluation:completed", b"{}"))
    await asyncio.wait_for(journal.durable(), 1)
    assert journal.buffered_events == 1
    bench.server.connected = True

    async def written() -> bool:
        return await bench.held("one:1") == {b"b": b"pulled"} and journal.buffered_events == 0

    await until(written)
    assert journal.writable
    assert journal._counters.events_published == 1
    assert journal._counters.events_dropped == 0


async def test_the_oldest_events_are_dropped_above_the_bound_and_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_BUFFERED_BYTES", 3 * (journal_module.EVENT_BYTES + 1))
    journal = await bench.journal("one:1")
    bench.server.connected = False
    journal.put("a", b"pulled")
    await journal.durable()
    for i in range(5):
        journal.publish("evaluation:completed", b"%d" % i)
    assert [payload for _, payload, _ in journal._events] == [b"2", b"3", b"4"]
    assert journal._counters.events_dropped == 2


async def test_after_an_outage_events_go_in_batches_of_their_bound_and_entries_only_with_their_event(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_BATCH_BYTES", 3 * journal_module.EVENT_BYTES)
    journal = await bench.journal("one:1")
    ids = [f"t{i}" for i in range(20)]
    for eval_id in ids:
        journal.put(eval_id, b"executed")
    await journal.durable()
    batch = journal._batch_script
    published: list[str] = []

    async def run(keys: list[str], args: list[Any]) -> bytes:
        if len(published) > 10:
            raise RedisConnectionError("away again")
        count = args[1]
        assert 1 <= count <= 4
        published.extend(payload.decode() for payload in args[3 : 2 + 2 * count : 2])
        return bytes(await batch(keys, args))

    monkeypatch.setattr(journal, "_batch_script", run)
    for eval_id in ids:
        journal.finish(eval_id, ("evaluation:completed", eval_id.encode()))
    await journal.durable()
    assert published == ids[: len(published)]
    assert {*await bench.held("one:1")} == {eval_id.encode() for eval_id in ids[len(published) :]}
    journal.put(ids[-1], b"pulled")  # the queue has handed it out again
    monkeypatch.setattr(journal, "_batch_script", batch)

    async def written() -> bool:
        return journal.buffered_events == 0

    await until(written)
    await journal.durable()
    assert await bench.held("one:1") == {ids[-1].encode(): b"pulled"}
    assert journal._counters.events_published == 20


async def test_closing_gives_the_lease_up_and_keeps_what_is_not_done(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal.put("a", b"pulled")
    journal.put("b", b"pulled")
    journal.finish("b")
    await journal.close()
    assert not await bench.redis.exists(f"{BASE}lease:one:1")
    assert await bench.held("one:1") == {b"a": b"pulled"}
    await bench.journal("two:1")
    assert bench.recovered == {"a": b"pulled"}


async def test_an_empty_journal_leaves_nothing_behind(bench: Bench) -> None:
    await (await bench.journal("one:1")).close()
    assert await bench.redis.keys("*") == []


async def test_a_close_that_is_cancelled_still_lets_the_lease_go(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    journal._sets["a"] = None
    journal._entries["a"] = b"pulled"
    for task in journal._tasks:
        task.cancel()  # nobody writes: it would wait for its whole time
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not await bench.redis.exists(f"{BASE}lease:one:1")


async def test_an_entry_that_cannot_be_read_is_set_aside(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    await journal.quarantine("a", b"{not json")
    assert await bench.redis.hgetall(f"{BASE}quarantine") == {b"a": b"{not json"}


async def test_events_that_a_journal_cannot_publish_any_more_are_its_heirs(bench: Bench) -> None:
    old = await bench.journal("old:1")
    await bench.dies("old:1")
    heir = await bench.journal("heir:1")
    old.publish("evaluation:completed", b"{}")
    await old.durable()
    assert old.fenced
    old.bequeath(heir)
    await heir.durable()
    assert (old.buffered_events, heir._counters.events_published) == (0, 1)


async def test_an_heir_that_is_gone_itself_passes_them_on(bench: Bench) -> None:
    old, gone, last = await bench.journal("old:1"), await bench.journal("gone:1"), await bench.journal("last:1")
    gone.bequeath(last)
    await gone.close()
    await old.close()
    old.publish("evaluation:completed", b"{}")
    old.bequeath(gone)
    await last.durable()
    assert last._counters.events_published == 1


async def test_a_close_waits_for_the_first_batch_after_an_outage(bench: Bench) -> None:
    journal = await bench.journal("one:1")
    bench.server.connected = False
    journal.publish("evaluation:completed", b"{}")
    await journal.durable()
    assert not journal.writable
    bench.server.connected = True
    while not journal._writing:
        await asyncio.sleep(0)
    assert not journal.writable, "the batch is under way, and has not come back"
    await journal.close()
    assert journal._counters.events_published == 1
