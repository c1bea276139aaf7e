"""The supervisor replaces a router whose queue or Redis has another URL: nothing is lost, and nothing is run twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web
from redis.asyncio import Redis

from devcluster.redis_server import RedisServer
from queueworker.resend import FailedTasks
from queueworker.routing.snapshot import Phase
from tests.support.redis_state import journals, published, set_user
from tests.support.running import GROUP, config, endpoints, supervised
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from queueworker.controller.supervisor import RouterSupervisor

# Tasks of at most a second: a drain takes 11 s at most, with the margin in which an executor may answer.
BRIEF = {"drainSeconds": 0, "taskTimeoutSeconds": 1}
LONGER_THAN_A_DRAIN_SECONDS = 30


def phase(supervisor: RouterSupervisor) -> Phase | None:
    snapshot = supervisor.snapshot()
    return None if snapshot is None else snapshot.phase


def journal_fails(supervisor: RouterSupervisor) -> bool:
    snapshot = supervisor.snapshot()
    return snapshot is not None and not snapshot.journal.ok


def refuse_reports(queue: StubQueue) -> None:
    """Until `report_answers` is cleared."""
    queue.report_answers.extend(web.Response(status=500) for _ in range(100))


async def until_refused(queue: StubQueue) -> None:
    await until(lambda: len(queue.report_answers) < 100)


async def test_another_queue_is_polled_once_the_tasks_of_the_old_one_are_reported_there(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    pool = endpoints([executor])
    queue.submit("old")
    async with StubQueue() as other, supervised() as supervisor:
        supervisor.drive(config(queue, redis_url, executors={"concurrency": 2}), pool)
        await until(lambda: executor.in_flight == 1)
        other.submit("new")
        supervisor.drive(config(other, redis_url, executors={"concurrency": 2}), pool)
        queue.submit("left in the old queue")
        await until(lambda: phase(supervisor) is Phase.DRAINING)
        await asyncio.sleep(1.5)  # longer than the poll interval
        assert executor.executed == ["old"], "nothing new is pulled, from neither queue, while the router drains"
        executor.gate.set()
        await queue.reported(1)
        await other.reported(1)
        assert supervisor.totals.completed == 1
        assert executor.executed == ["old", "new"]
        assert (queue.reports, other.reports) == ({"old": 1}, {"new": 1})
    assert len(queue.waiting) == 1
    assert await journals(redis_url) == {}


async def test_another_redis_gets_what_comes_after_the_move_and_the_old_one_keeps_nothing(
    queue: StubQueue, executor: StubExecutor, redis_url: str, own_redis: RedisServer
) -> None:
    executor.gate = asyncio.Event()
    pool = endpoints([executor])
    queue.submit("a")
    async with published(own_redis.url) as before, published(redis_url) as after, supervised() as supervisor:
        supervisor.drive(config(queue, own_redis.url), pool)
        await until(lambda: executor.in_flight == 1)
        supervisor.drive(config(queue, redis_url), pool)
        queue.submit("b")
        executor.gate.set()
        await queue.reported(2)
        await until(lambda: after)
    assert [payload["eval_id"] for _, payload in before] == ["a"]
    assert [payload["eval_id"] for _, payload in after] == ["b"]
    assert queue.reports == {"a": 1, "b": 1}
    assert executor.executed == ["a", "b"]
    assert await journals(own_redis.url) == await journals(redis_url) == {}


async def rotate(redis_url: str, user: str, password: str) -> None:
    """Redis keeps the connections of a user whose password is another one: they break as in a restart."""
    await set_user(redis_url, user, "on", "resetpass", f">{password}", "~*", "&*", "+@all")
    async with Redis.from_url(redis_url) as redis:
        for connection in await redis.client_list():
            if connection["user"] == user:
                await redis.client_kill_filter(_id=connection["id"])


async def test_another_password_at_the_same_redis_needs_no_other_router_and_nothing_runs_twice(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    executor.gate = asyncio.Event()
    await set_user(own_redis.url, "one", "on", ">old", "~*", "&*", "+@all")
    old, new, other = (own_redis.url.replace("//", f"//{login}@") for login in ("one:old", "one:new", "two:x"))
    pool = endpoints([executor])
    queue.submit("a", "b")
    async with published(own_redis.url) as events, supervised() as supervisor:
        supervisor.drive(config(queue, old, executors={"concurrency": 4}), pool)
        await until(lambda: executor.in_flight == 2)
        await until(lambda: not journal_fails(supervisor))
        await rotate(own_redis.url, "one", "new")
        await until(lambda: journal_fails(supervisor))
        executor.gate.set()
        await queue.reported(2)
        executor.gate.clear()
        queue.submit("long")
        await until(lambda: executor.in_flight == 1)
        supervisor.drive(config(queue, new, executors={"concurrency": 4}), pool)
        await until(lambda: len(events) == 2)
        assert not journal_fails(supervisor)
        assert phase(supervisor) is Phase.ROUTING
        await rotate(own_redis.url, "two", "x")
        supervisor.drive(config(queue, other, executors={"concurrency": 4}), pool)
        await until_logged_in(own_redis.url, "two")
        executor.gate.set()
        await queue.reported(3)
        await until(lambda: len(events) == 3)
    assert queue.reports == {"a": 1, "b": 1, "long": 1}
    assert executor.executed == ["a", "b", "long"]
    assert await journals(own_redis.url) == {}


async def until_logged_in(redis_url: str, user: str) -> None:
    """Return when a script was run as this user: others follow with their next call."""
    async with asyncio.timeout(20), Redis.from_url(redis_url) as redis:
        while (user, "evalsha") not in {(c["user"], c["cmd"]) for c in await redis.client_list()}:
            await asyncio.sleep(0.1)


async def test_results_events_and_failed_tasks_that_reached_nobody_go_to_the_successor_on_another_redis(
    queue: StubQueue, executor: StubExecutor, redis_url: str, own_redis: RedisServer, events: list[tuple[str, Any]]
) -> None:
    failed = result("b", status="failed", error="Traceback", exit_code=1)
    executor.answers.extend(web.json_response(r) for r in (result("a"), failed, result("c", output="kept")))
    pool = endpoints([executor])
    async with supervised() as supervisor:
        supervisor.drive(config(queue, own_redis.url, routing=BRIEF), pool)
        own_redis.kill()
        await until(lambda: journal_fails(supervisor))
        for i, eval_id in enumerate("ab", 1):
            queue.submit(eval_id)
            await queue.reported(i)
        refuse_reports(queue)
        queue.submit("c")
        await until_refused(queue)
        supervisor.drive(config(queue, redis_url, routing=BRIEF), pool)
        await until(lambda: len(events) == 2, LONGER_THAN_A_DRAIN_SECONDS)
        assert [payload["eval_id"] for _, payload in events] == ["a", "b"]
        assert queue.reports == {"a": 1, "b": 1}
        assert await journals(redis_url) == {GROUP: {"c"}}
        queue.report_answers.clear()
        await queue.reported(3, LONGER_THAN_A_DRAIN_SECONDS)
        await until(lambda: len(events) == 3)
    assert queue.completed["c"]["output"] == "kept"
    assert executor.executed == ["a", "b", "c"]
    assert queue.reports == {"a": 1, "b": 1, "c": 1}
    assert await failed_tasks(redis_url) == {"b": "Traceback"}
    assert await journals(redis_url) == {}


async def follow(copy: RedisServer, original: RedisServer) -> None:
    """Make the one a replica of the other."""
    async with Redis.from_url(copy.url) as redis:
        await redis.replicaof("127.0.0.1", str(original.port))


async def promote(copy: RedisServer, original: RedisServer) -> None:
    """The copy is the primary from now on, and the original is gone."""
    async with Redis.from_url(copy.url) as redis:
        await redis.replicaof("NO", "ONE")
    await asyncio.to_thread(original.kill)


async def test_a_copy_of_the_old_redis_under_another_name_and_password_has_nothing_run_or_reported_twice(
    queue: StubQueue, executor: StubExecutor, own_redis: RedisServer
) -> None:
    """The entries of tasks that end after the last replication are in the copy only."""
    executor.gate = asyncio.Event()
    pool = endpoints([executor])
    two: dict[str, Any] = {"executors": {"concurrency": 2}}
    with RedisServer() as copy:
        await follow(copy, own_redis)
        queue.submit("a", "b")
        async with supervised() as supervisor:
            supervisor.drive(config(queue, own_redis.url, **two), pool)
            await until(lambda: executor.in_flight == 2)
            async with asyncio.timeout(20):
                while await journals(copy.url) != {GROUP: {"a", "b"}}:
                    await asyncio.sleep(0.05)
            await promote(copy, own_redis)
            await set_user(copy.url, "one", "on", ">new", "~*", "&*", "+@all")
            async with published(copy.url) as events:
                executor.gate.set()
                await queue.reported(2)
                queue.submit("c")
                supervisor.drive(config(queue, copy.url.replace("//", "//one:new@"), **two), pool)
                await queue.reported(3, LONGER_THAN_A_DRAIN_SECONDS)
                async with asyncio.timeout(20):  # the copied lease ends, and what it kept is looked at
                    while await journals(copy.url):
                        await asyncio.sleep(0.1)
                await until(lambda: len(events) == 3)
    assert queue.reports == {"a": 1, "b": 1, "c": 1}
    assert executor.executed == ["a", "b", "c"]
    assert [payload["eval_id"] for _, payload in events] == ["a", "b", "c"]


async def failed_tasks(redis_url: str) -> dict[str, str]:
    """The errors in the record of failed tasks, by id."""
    tasks = FailedTasks(redis_url, GROUP)
    try:
        return {task.eval_id: task.error async for task in tasks.newest_first()}
    finally:
        await tasks.close()


async def test_a_result_that_the_old_queue_refuses_is_reported_there_by_the_successor(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    pool = endpoints([executor])
    refuse_reports(queue)
    queue.submit("old")
    async with StubQueue() as other, supervised() as supervisor:
        supervisor.drive(config(queue, redis_url, routing=BRIEF), pool)
        await until_refused(queue)
        supervisor.drive(config(other, redis_url, routing=BRIEF), pool)
        other.submit("new")
        await other.reported(1, LONGER_THAN_A_DRAIN_SECONDS)
        assert queue.reports == {}
        queue.report_answers.clear()
        await queue.reported(1, LONGER_THAN_A_DRAIN_SECONDS)
    assert (queue.reports, other.reports) == ({"old": 1}, {"new": 1})
    assert executor.executed == ["old", "new"]
    assert await journals(redis_url) == {}


async def test_an_operator_that_ends_during_the_move_leaves_everything_in_the_new_redis(
    queue: StubQueue, executor: StubExecutor, redis_url: str, own_redis: RedisServer
) -> None:
    stuck = StubExecutor(gate=asyncio.Event())
    two: dict[str, Any] = {"executors": {"concurrency": 2}, "routing": BRIEF}
    refuse_reports(queue)
    queue.submit("executed")
    async with supervised() as supervisor:
        supervisor.drive(config(queue, own_redis.url, **two), endpoints([executor]))
        await until_refused(queue)
        async with stuck:
            supervisor.drive(config(queue, own_redis.url, **two), endpoints([stuck]))
            queue.submit("executing")
            await until(lambda: stuck.in_flight == 1)
            supervisor.drive(config(queue, redis_url, **two), endpoints([stuck]))
            await until(lambda: phase(supervisor) is Phase.DRAINING)
            await supervisor.stop(final=False)
    assert await journals(own_redis.url) == {}
    assert await journals(redis_url) == {GROUP: {"executed", "executing"}}
    queue.report_answers.clear()
    async with supervised() as next_operator:
        next_operator.drive(config(queue, redis_url), endpoints([executor]))
        await queue.reported(2)
    assert queue.reports == {"executed": 1, "executing": 1}
    assert executor.executed == ["executed", "executing"]
    assert queue.completed == {"executed": result("executed"), "executing": result("executing")}
