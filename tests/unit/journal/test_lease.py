"""The lease: heartbeats, takeovers, and what a router learns that was declared dead."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError

from queueworker.routing.counters import Counters
from queueworker.routing.journal import scripts
from queueworker.routing.journal.lease import Instance, Lease
from queueworker.routing.journal.redis_link import RedisLink
from queueworker.routing.journal.scripts import QUARANTINE_SECONDS, WRITTEN
from queueworker.routing.journal.takeover_room import TakeoverRoom
from queueworker.routing.memory_budget import MemoryAccount
from queueworker.routing.snapshot import LinkReason
from tests.support.journals import BASE, QUICK, STILL, FakeClient, Held, Late, broken, eventually, lost
from tests.support.memory import account

if TYPE_CHECKING:
    from queueworker.routing.limits import JournalTimes
    from tests.support.journals import Call, Fault, Group


@dataclass
class Bench:
    group: Group
    worker: str = "one"
    times: JournalTimes = STILL
    max_takeover_bytes: int = 1000
    memory: MemoryAccount = field(default_factory=account)
    new: int = 0
    fenced: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = FakeClient(self.group.server)
        self.link = RedisLink("redis://fake", Counters(), lambda: None, waits=lambda: False)
        self.room = TakeoverRoom(self.max_takeover_bytes, self.memory)
        self.lease = Lease(
            *(self.client, Instance(BASE, self.worker), self.link, self.room),  # type: ignore[arg-type]
            times=self.times,
            clock=lambda: self.group.now,
            on_new=self.on_new,
            on_fenced=self.fenced.append,
        )

    def on_new(self) -> None:
        self.new += 1

    def faults(self, *faults: Fault) -> None:
        self.client.faults[scripts.LEASE].extend(faults)

    async def batch(self, number: int = 1, instance: Instance | None = None) -> bytes:
        """The answer to an empty batch."""
        instance = instance or self.lease.instance
        answer: bytes = await self.client.register_script(scripts.BATCH)(instance.batch_keys, [number, 0, 0, 0, 0])
        return answer

    async def dies(self) -> None:
        await self.group.redis.delete(self.lease.instance.lease_key)
        self.group.now += 60

    async def holds(self, *eval_ids: str) -> None:
        for eval_id in eval_ids:
            await self.group.redis.hset(self.lease.instance.journal_key, eval_id, b"pulled")

    async def journal(self) -> dict[Any, Any]:
        return await self.group.redis.hgetall(self.lease.instance.journal_key)


# --- phase 2: our own lease


async def test_a_lease_is_taken_and_then_renewed(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    assert (one.new, one.lease.until, one.link.journal.ok) == (1, 6.0, True)
    ttl = await group.redis.pttl(one.lease.instance.lease_key)
    assert 5_000 < ttl <= 6_000
    group.now = 3.0
    await one.lease.renew()
    assert (one.new, one.lease.until) == (1, 9.0)


async def test_a_lease_counts_from_when_it_was_asked_for(group: Group) -> None:
    one = Bench(group)
    one.faults(held := Held(answered=True))
    renewing = asyncio.create_task(one.lease.renew())
    await held.reached.wait()
    group.now = 5.0
    held.released.set()
    await renewing
    assert one.lease.until == 6.0


async def test_a_lease_that_was_gone_is_new_and_refuses_batches_that_are_on_their_way(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    one.lease.instance.batch_number = 5
    await one.dies()
    assert await one.batch(5) == b"NOLEASE"
    await one.lease.renew()
    assert one.new == 2
    assert await one.batch(5) == b"STALE"
    assert await one.batch(6) == WRITTEN
    assert await one.batch(6) == b"STALE"


async def test_that_redis_forgot_us_is_known_though_the_answer_that_said_so_was_lost(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    await group.redis.flushall()
    one.faults(lost)
    await one.lease.renew()
    assert one.new == 1
    await one.lease.renew()
    await one.lease.renew()
    assert one.new == 2


async def test_heartbeats_come_by_themselves_and_survive_an_outage(group: Group) -> None:
    one = Bench(group, times=QUICK)
    running = asyncio.create_task(one.lease.run())
    await eventually(lambda: one.link.journal.ok)
    group.server.connected = False
    await eventually(lambda: one.link.failures > 2)
    assert one.link.journal.reason is LinkReason.CONNECTION_FAILED
    group.server.connected = True
    await eventually(lambda: one.link.journal.ok)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_heartbeat_that_meets_a_defect_is_followed_by_others(group: Group) -> None:
    async def defect(_: Call) -> Any:
        raise ResponseError("attempt to index a nil value")

    one = Bench(group)
    await one.lease.renew()
    one.faults(defect)
    await one.lease.renew()
    assert not one.link.journal.ok
    await one.lease.renew()
    assert one.link.journal.ok


async def test_only_one_renewal_goes_at_a_time(group: Group) -> None:
    one = Bench(group)
    one.faults(held := Held())
    renewals = [asyncio.create_task(one.lease.renew()) for _ in range(3)]
    await held.reached.wait()
    held.released.set()
    await asyncio.gather(*renewals)
    assert one.new == 1


async def test_rivals_are_the_live_instances_of_other_workers(group: Group) -> None:
    one, again, two, dead = Bench(group), Bench(group), Bench(group, "two"), Bench(group, "dead")
    for bench in (again, two, dead, one):
        await bench.lease.renew()
    assert one.lease.rivals == 2
    await dead.dies()
    await one.lease.renew()
    assert one.lease.rivals == 1


async def test_leaving_gives_the_lease_up_and_is_known_to_the_others_while_something_is_left(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    await one.holds("a")
    await one.lease.leave()
    assert not await group.redis.exists(one.lease.instance.lease_key)
    assert await group.redis.smembers(f"{BASE}instances") == {one.lease.instance.id.encode()}
    await group.redis.delete(one.lease.instance.journal_key)
    await one.lease.leave()
    assert await group.redis.keys("*") == []


# --- phase 3: what others left


async def test_a_dead_instances_entries_are_moved_and_it_is_refused_from_then_on(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a", "b")
    await dead.dies()
    await one.lease.renew(take_over=True)
    assert await one.journal() == {b"a": b"pulled", b"b": b"pulled"}
    assert one.room.unread.is_set()
    assert await dead.journal() == {}
    assert await dead.batch() == b"FENCED"


async def test_one_portion_is_moved_at_a_time_and_the_next_once_that_is_read(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group, max_takeover_bytes=1)
    await dead.lease.renew()
    await dead.holds("a", "b", "c")
    await dead.dies()
    for moved in (1, 1, 1):
        await one.lease.renew(take_over=True)
        assert len(await one.journal()) == moved
    one.room.read()
    assert one.room.wanted.is_set(), "there may be more"
    await one.lease.renew(take_over=True)
    assert len(await one.journal()) == 2
    one.room.read()
    await one.lease.renew(take_over=True)
    one.room.read()
    await one.lease.renew(take_over=True)
    assert len(await one.journal()) == 3
    assert not one.room.unread.is_set()
    assert await group.redis.smembers(f"{BASE}instances") == {one.lease.instance.id.encode()}


async def test_what_a_predecessor_left_in_the_copy_of_another_redis_is_dropped(group: Group) -> None:
    one = Bench(group)
    one.lease.disowned = ("far", "predecessor")
    await group.leave_dead("predecessor", {b"a": b"executing"})
    await group.leave_dead("dead", {b"b": b"executing"})
    await one.lease.renew(take_over=True)
    assert await group.held(one.lease.instance.id) == {b"b": b"executing"}
    assert await group.held("predecessor") == {}
    assert b"predecessor" not in await group.redis.smembers(f"{BASE}instances")


async def test_what_is_not_moved_yet_is_not_the_dead_instances_own_any_more(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group, max_takeover_bytes=1)
    await dead.lease.renew()
    await dead.holds("a", "b", "c")
    await dead.dies()
    await one.lease.renew(take_over=True)
    await dead.lease.verify()
    assert dead.fenced == [{"", "a", "b", "c"}]


async def test_a_renewal_that_is_no_heartbeat_moves_nothing(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a")
    await dead.dies()
    await one.lease.renew()
    assert await one.journal() == {}
    assert not one.room.unread.is_set()


@pytest.mark.parametrize("fault", [lost, broken])
async def test_after_a_heartbeat_without_an_answer_there_may_be_something_to_read(group: Group, fault: Fault) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a")
    await dead.dies()
    one.faults(fault, fault)
    await one.lease.renew(take_over=True)
    await one.lease.renew(take_over=True)
    assert not one.room.unread.is_set(), "it may still be on its way"
    await one.lease.renew(take_over=True)
    assert one.room.unread.is_set()
    assert (await one.journal() == {b"a": b"pulled"}) == (fault is lost)
    one.room.read()
    assert not one.room.wanted.is_set(), "that nothing is known is no reason for the next heartbeat to hurry"


async def test_a_heartbeat_that_arrives_after_a_later_one_moves_nothing(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a")
    one.faults(late := Late())
    await one.lease.renew(take_over=True)
    await one.lease.renew(take_over=True)
    one.room.read()
    await dead.dies()
    assert (await late.arrive())[0] == b"STALE"
    assert await one.journal() == {}
    await one.lease.renew(take_over=True)
    assert await one.journal() == {b"a": b"pulled"}


async def test_a_heartbeat_that_never_went_out_moved_nothing(group: Group) -> None:
    one = Bench(group)
    group.server.connected = False
    await one.lease.renew(take_over=True)
    assert not one.room.unread.is_set()


async def test_an_entry_that_we_have_ourselves_is_dropped(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a")
    await dead.dies()
    await one.lease.renew()
    await group.redis.hset(one.lease.instance.journal_key, "a", b"ours")
    await one.lease.renew(take_over=True)
    assert await one.journal() == {b"a": b"ours"}
    assert await dead.journal() == {}


async def test_a_journal_that_is_no_hash_is_set_aside_and_ours_is_written_anew(group: Group) -> None:
    one = Bench(group)
    await group.redis.sadd(f"{BASE}instances", "ghost")
    await group.redis.set(f"{BASE}journal:ghost", "noise")
    await one.lease.renew(take_over=True)
    assert await group.redis.get(f"{BASE}quarantine:ghost") == b"noise"
    await group.redis.set(one.lease.instance.journal_key, "noise")
    await one.lease.renew()
    assert one.new == 2
    assert await group.redis.get(f"{BASE}quarantine:{one.lease.instance.id}") == b"noise"
    assert await group.redis.ttl(f"{BASE}quarantine:ghost") == QUARANTINE_SECONDS, "kept for a person, and not for ever"
    assert one.link.journal.ok


@pytest.mark.parametrize("kind", ["lease", "heartbeat", "instances"])
async def test_a_key_of_ours_that_holds_something_else_is_written_anew(group: Group, kind: str) -> None:
    one = Bench(group)
    await one.lease.renew()
    key = f"{BASE}{kind}" if kind == "instances" else f"{BASE}{kind}:{one.lease.instance.id}"
    await group.redis.delete(key)
    await group.redis.rpush(key, "noise")
    await one.lease.renew()
    assert one.link.journal.ok
    assert await one.batch(1) == WRITTEN


async def test_a_dead_instance_is_taken_over_though_somebody_wrote_to_its_fence(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a")
    await group.redis.set(dead.lease.instance.fenced_key, "noise")
    await dead.dies()
    await one.lease.renew(take_over=True)
    assert await one.journal() == {b"a": b"pulled"}
    assert await dead.batch() == b"FENCED"


@pytest.mark.parametrize("noise", ["", "noise", "-1", "1e300"])
async def test_a_lease_that_is_no_number_is_taken_anew(group: Group, noise: str) -> None:
    one = Bench(group)
    await one.lease.renew()
    await group.redis.set(one.lease.instance.lease_key, noise)
    await one.lease.renew()
    assert one.new == 2
    assert await one.batch(1) == WRITTEN


async def test_a_router_whose_group_has_forgotten_it_is_taken_over_all_the_same(group: Group) -> None:
    dead, one = Bench(group, "dead"), Bench(group)
    await dead.lease.renew()
    await dead.holds("a")
    await group.redis.delete(f"{BASE}instances")
    await dead.lease.renew()
    await dead.dies()
    await one.lease.renew(take_over=True)
    assert await one.journal() == {b"a": b"pulled"}


# --- phase 1: declared dead


async def test_it_goes_on_as_another_instance_with_a_lease_and_batches_of_its_own(group: Group) -> None:
    frozen, one = Bench(group, "frozen"), Bench(group)
    await frozen.lease.renew()
    await frozen.holds("a")
    frozen.lease.instance.batch_number = 7
    before = frozen.lease.instance
    await frozen.dies()
    await one.lease.renew(take_over=True)
    await frozen.lease.verify()
    assert frozen.fenced == [{"", "a"}]
    assert frozen.lease.instance is not before
    assert frozen.lease.until == group.now + 6
    assert (frozen.new, frozen.link.journal.ok) == (2, True)
    assert await frozen.batch(1) == WRITTEN
    assert await frozen.batch(8, before) == b"FENCED"
    await frozen.lease.verify()
    assert len(frozen.fenced) == 1


async def test_a_list_of_what_was_taken_that_somebody_broke_loses_nothing(group: Group) -> None:
    frozen = Bench(group, "frozen")
    await frozen.lease.renew()
    await group.redis.set(frozen.lease.instance.fenced_key, "noise")
    await frozen.lease.renew()
    assert frozen.fenced == [set()]
    assert frozen.link.journal.ok


async def test_what_was_moved_and_not_read_went_with_the_journal(group: Group) -> None:
    frozen, one = Bench(group, "frozen"), Bench(group)
    await frozen.lease.renew()
    frozen.room.answered(10)
    await frozen.dies()
    await one.lease.renew(take_over=True)
    await frozen.lease.renew()
    assert not frozen.room.unread.is_set()


async def test_a_refused_batch_renews_the_lease_unless_the_instance_was_renewed_meanwhile(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    before = one.lease.instance
    await one.dies()
    await one.lease.refused(before)
    assert one.new == 2
    await one.lease.refused(before.next())
    await one.dies()
    assert await one.batch() == b"NOLEASE", "it was not renewed"


async def test_until_it_has_a_lease_again_nobody_may_act_without_asking(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    group.server.connected = False
    await one.lease.refused(one.lease.instance)
    assert one.lease.until < group.now


# --- verify


async def test_while_the_lease_is_good_redis_is_not_asked(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    await group.redis.delete(one.lease.instance.lease_key)
    await one.lease.verify()
    assert one.new == 1


async def test_of_many_who_ask_at_once_one_does(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    await one.dies()
    one.faults(held := Held())
    asking = [asyncio.create_task(one.lease.verify()) for _ in range(10)]
    await held.reached.wait()
    held.released.set()
    await asyncio.wait_for(asyncio.gather(*asking), 1)
    assert one.new == 2


async def test_a_redis_that_is_known_to_be_away_is_asked_only_when_that_is_old_news(group: Group) -> None:
    one = Bench(group)
    await one.lease.renew()
    group.server.connected = False
    group.now = 7.0
    await one.lease.verify()
    group.server.connected = True
    group.now = 8.0
    await one.lease.verify()
    assert not one.link.journal.ok, "it was asked a second ago"
    group.now = 60.0  # the process was frozen, and knows nothing
    await one.lease.verify()
    assert one.link.journal.ok


async def test_who_stops_asking_leaves_no_lock_behind(group: Group) -> None:
    one = Bench(group)
    one.faults(held := Held())
    asking = asyncio.create_task(one.lease.verify())
    group.now = 1.0
    await held.reached.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.wait_for(one.lease.renew(), 1)
    assert one.link.journal.ok
