"""A router with a queue and executors that behave, or misbehave in ways that docs/wire.md allows."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from queueworker.routing.snapshot import LinkReason
from tests.support.running import config, endpoints, running
from tests.support.stubs import StubExecutor, StubQueue, result, until


async def test_every_task_is_reported_once_with_the_executors_whole_result(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    ids = [f"task-{i}" for i in range(300)]
    queue.submit(*ids)
    async with running(queue, [executor], redis_url, executors={"concurrency": 4}) as router:
        await queue.reported(300)
        await until(lambda: router.snapshot().in_flight == 0)
        snapshot = router.snapshot()
    assert queue.reports == Counter(ids)
    assert queue.completed["task-7"] == result("task-7")
    assert snapshot.counters.completed == 300
    assert snapshot.counters.routed == snapshot.per_minute == 300
    assert [e.in_flight for e in snapshot.executors] == [0]


async def test_an_outcome_is_published_after_the_queue_has_it(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    queue.report_answers.append(web.Response(status=500))
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await until(lambda: not queue.report_answers)
        await asyncio.sleep(0.2)
        assert not events
        await queue.reported(1)
        await until(lambda: events)
    assert events == [("evaluation:completed", {**result("a"), "result": result("a")})]


async def test_a_failed_result_is_reported_and_published_with_its_error(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    failed = result("a", status="failed", error="Traceback", exit_code=1)
    executor.answers.append(web.json_response(failed))
    executor.answers.append(web.json_response(result("b", status="killed", error=None)))
    queue.submit("a", "b")
    async with running(queue, [executor], redis_url):
        await queue.reported(2)
        await until(lambda: len(events) == 2)
    assert queue.failed == {"a": "Traceback", "b": "Execution failed"}
    assert events[0] == ("evaluation:failed", {**failed, "result": failed})


async def test_a_task_fails_after_the_grace_without_a_healthy_executor_with_the_legacy_workers_error(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]]
) -> None:
    executors = {"unavailableGraceSeconds": 1, "healthCheck": {"periodSeconds": 60}}
    async with running(queue, [executor], redis_url, executors=executors) as router:
        await until(lambda: router.snapshot().healthy == 1)
        executor.healthy = False
        await asyncio.sleep(
            1.1
        )  # The last check is older than maxAgeSeconds: the executor is checked before it gets a task.
        queue.submit("a")
        await queue.reported(1)
        await until(lambda: events)
    assert queue.failed == {"a": "No healthy executors available"}
    assert events[0][1] == {"eval_id": "a", "error": "No healthy executors available"}
    assert executor.executed == []


async def test_with_hold_a_task_waits_for_an_executor_and_the_rest_stays_in_the_queue(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.healthy = False
    queue.submit("a", "b")
    async with running(
        queue, [executor], redis_url, executors={"whenUnavailable": "Hold", "unavailableGraceSeconds": 0}
    ):
        await asyncio.sleep(1.5)
        assert len(queue.waiting) == 2
        executor.healthy = True
        await queue.reported(2)
    assert sorted(queue.completed) == ["a", "b"]


async def test_all_slots_are_filled_at_once_and_never_more(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(name="one") as one, StubExecutor(name="two") as two:
        one.gate = two.gate = asyncio.Event()
        queue.submit(*(f"t{i}" for i in range(64)))
        async with running(queue, [one, two], redis_url, executors={"concurrency": 16}) as router:
            await until(lambda: one.in_flight == two.in_flight == 16, timeout=3)
            assert len(queue.waiting) == 32, "nothing is pulled that has no slot"
            one.gate.set()
            await queue.reported(64)
            assert all(e.in_flight == 0 for e in router.snapshot().executors)
        assert one.most_in_flight == two.most_in_flight == 16


async def test_an_idle_router_polls_once_an_interval_however_many_slots_are_free(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    async with running(queue, [executor], redis_url, executors={"concurrency": 64}):
        await asyncio.sleep(3.5)
    assert 3 <= len(queue.polls) <= 5


@pytest.mark.parametrize("answer", [b"", b"{}", b"null"])
async def test_an_empty_queue_may_say_so_in_its_own_way(
    queue: StubQueue, executor: StubExecutor, redis_url: str, answer: bytes
) -> None:
    queue.pull_answers.append(web.Response(body=answer, content_type="application/json"))
    queue.pull_answers.append(web.Response(status=204))
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(1)
        assert router.snapshot().counters.polls_failed == 0
    assert queue.completed.keys() == {"a"}


async def test_a_task_that_did_not_start_goes_to_the_next_healthy_executor(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(name="gone") as gone, StubExecutor(name="there") as there:
        spec = {"healthCheck": {"periodSeconds": 60, "maxAgeSeconds": 60}, "concurrency": 2}
        async with running(
            queue, [gone, there], redis_url, executors=spec, routing={"strategy": "RoundRobin"}
        ) as router:
            await until(lambda: router.snapshot().healthy == 2)
            await gone.stop()
            queue.submit("a", "b", "c", "d")
            await queue.reported(4)
            sick = {e.name: e for e in router.snapshot().executors}["gone"]
        assert not sick.healthy
        assert "Connection refused" in sick.reason
    assert sorted(queue.completed) == ["a", "b", "c", "d"]
    assert sorted(there.executed) == ["a", "b", "c", "d"]


async def test_a_busy_executor_cools_down_and_the_task_goes_to_another(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(name="busy") as busy, StubExecutor(name="free") as free:
        busy.answers.extend(web.Response(status=status, text="full") for status in (429, 503) * 50)
        queue.submit(*(f"t{i}" for i in range(20)))
        async with running(queue, [busy, free], redis_url):
            await queue.reported(20)
        assert len(queue.completed) == 20
        assert len(busy.executed) < 10, "it was asked again while it cooled down"


async def test_an_ambiguous_failure_is_not_sent_again_unless_retry_allows_it(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.append("reset")
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert executor.executed == ["a"]
    assert "executor-1" in queue.failed["a"]


async def test_an_ambiguous_failure_is_sent_again_when_retry_allows_it(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.extend(["reset", web.Response(status=500, text="oops")])
    queue.submit("a")
    async with running(queue, [executor], redis_url, routing={"retry": {"attempts": 3, "backoffSeconds": 1}}) as router:
        await queue.reported(1)
        assert router.snapshot().counters.retried == 2
    assert executor.executed == ["a", "a", "a"]
    assert queue.completed.keys() == {"a"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (web.Response(status=400, text="no such engine"), "Executor rejected task: no such engine"),
        (web.Response(status=500, text="oops"), "Executor rejected task: oops"),
        (web.Response(text="<html>"), "executor executor-1 answered no JSON: <html>"),
        (web.json_response([1]), "executor executor-1 answered no result object: [1]"),
    ],
)
async def test_a_task_fails_with_the_words_of_an_answer_that_is_no_result(
    queue: StubQueue, executor: StubExecutor, redis_url: str, answer: web.Response, error: str
) -> None:
    executor.answers.append(answer)
    queue.submit("a", "b")
    async with running(queue, [executor], redis_url):
        await queue.reported(2)
    assert queue.failed["a"].startswith(error)
    assert queue.completed.keys() == {"b"}


async def test_a_result_that_strict_json_refuses_is_taken_and_passed_on_as_json_for_all(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.append(web.Response(text='{"status": "completed", "exit_code": NaN, "output": "\\ud83d"}'))
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert queue.completed == {"a": {"status": "completed", "exit_code": None, "output": "\ufffd"}}


async def test_tasks_that_cannot_be_routed_are_reported_as_failed_or_counted_as_lost(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.waiting.extend(
        [b'{"eval_id": null, "code": "1"}', b'{"eval_id": "..", "code": "1"}', b'{"eval_id": "no code"}']
    )
    queue.submit("good")
    queue.known.add("no code")
    async with running(queue, [executor], redis_url) as router:
        await queue.reported(2)
        counters = router.snapshot().counters
    assert queue.completed.keys() == {"good"}
    assert queue.failed == {"no code": "the task has no code, or its code is not a string"}
    assert (counters.invalid, counters.pulls_lost_unreadable, counters.polls_failed) == (3, 2, 0)


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        *(("100000000000000000000", 86_400), ("1e400", 86_400), ("86401", 86_400), ("2.5", 2), ("1", 1)),
        *((other, 30) for other in ("0", "-5", "-1e400", "0.5", "NaN", "true", '"7"', "null", "[]")),
    ],
)
async def test_a_timeout_of_any_kind_is_run_with_one_that_makes_sense_and_costs_no_slot(
    queue: StubQueue, executor: StubExecutor, redis_url: str, number: str, seconds: int
) -> None:
    ids = ["a", "b", "c"]
    queue.waiting.extend(b'{"eval_id": "%b", "code": "1", "timeout": %b}' % (i.encode(), number.encode()) for i in ids)
    queue.known.update(ids)
    async with running(queue, [executor], redis_url, executors={"concurrency": 1}) as router:
        await queue.reported(3)
        queue.submit("d")
        await queue.reported(4)
        await until(lambda: router.snapshot().in_flight == 0)
        assert [e.in_flight for e in router.snapshot().executors] == [0]
    assert [body["timeout"] for body in executor.bodies] == [seconds] * 3 + [30]
    assert queue.reports == Counter([*ids, "d"])


async def test_an_id_with_any_characters_reaches_the_queue_as_it_is(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    ids = ["a/b", "ü?x=1#y", "%2e", "a b", "..a", "x" * 500]
    queue.submit(*ids)
    async with running(queue, [executor], redis_url):
        await queue.reported(len(ids))
    assert sorted(queue.completed) == sorted(ids)


async def test_the_same_id_handed_out_twice_at_once_is_run_and_reported_once(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.gate = asyncio.Event()
    queue.submit("a", "a", "b")
    async with running(queue, [executor], redis_url, executors={"concurrency": 4}) as router:
        await until(lambda: len(executor.executed) == 2)
        executor.gate.set()
        await queue.reported(2)
        assert router.snapshot().counters.duplicates == 1
    assert sorted(executor.executed) == ["a", "b"]
    assert queue.reports == {"a": 1, "b": 1}


@pytest.mark.parametrize("verb", ["complete", "fail"])
async def test_a_report_that_somebody_else_answered_is_sent_again(
    queue: StubQueue, executor: StubExecutor, redis_url: str, events: list[tuple[str, Any]], verb: str
) -> None:
    if verb == "fail":
        executor.answers.append(web.Response(status=400, text="no"))
    queue.report_answers.extend([web.Response(status=404, text="404 page not found"), web.json_response({"ok": True})])
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: not queue.report_answers)
        assert not events
        await queue.reported(1)
        await until(lambda: events)
        assert router.snapshot().counters.reports_unknown == 0
    assert queue.reports == {"a": 1}


async def test_a_result_that_the_queue_refuses_for_good_fails_the_task(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.report_answers.append(web.Response(status=413, text="too large"))
    queue.submit("a")
    async with running(queue, [executor], redis_url):
        await queue.reported(1)
    assert queue.failed == {"a": "queue refused the result with 413: too large"}


async def test_a_refused_key_is_named_and_a_new_one_is_tried_at_once(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    async with running(queue, [executor], redis_url) as router:
        queue.key = "new"
        queue.submit("a")
        await until(lambda: router.snapshot().queue.reason is LinkReason.AUTHENTICATION_FAILED)
        assert "was not given" in router.snapshot().queue.message
        router.apply(config(queue, redis_url))
        await queue.reported(1)
        assert router.snapshot().queue.ok


async def test_a_login_page_in_place_of_the_queue_is_named_and_counted_as_a_pull_that_may_be_lost(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.pull_answers.append(web.Response(text="<html>login</html>", content_type="text/html"))
    queue.submit("a")
    async with running(queue, [executor], redis_url) as router:
        await until(lambda: router.snapshot().queue.reason is LinkReason.INVALID_ANSWER)
        message = router.snapshot().queue.message
        assert message == f"queue {queue.url} answered 200 with something that is not a task (HTML, 18 bytes)"
        await queue.reported(1)
        assert router.snapshot().queue.ok
        assert router.snapshot().counters.pulls_lost_not_the_queues == 1


async def test_executors_that_leave_finish_what_they_run_and_get_no_more(queue: StubQueue, redis_url: str) -> None:
    async with StubExecutor(name="old") as old, StubExecutor(name="new") as new:
        old.gate = asyncio.Event()
        queue.submit("a")
        async with running(queue, [old], redis_url) as router:
            await until(lambda: old.in_flight == 1)
            router.set_endpoints(endpoints([new]))
            queue.submit("b", "c")
            await queue.reported(2)
            assert [(e.name, e.leaving) for e in router.snapshot().executors] == [("new", False), ("old", True)]
            old.gate.set()
            await queue.reported(3)
            await until(lambda: [e.name for e in router.snapshot().executors] == ["new"])
        assert old.executed == ["a"]


async def test_an_executor_gets_no_more_tasks_than_the_capacity_that_it_advertises(
    queue: StubQueue, redis_url: str
) -> None:
    async with StubExecutor(max_concurrent=2, delay=0.02) as executor:
        queue.submit(*(f"t{i}" for i in range(30)))
        async with running(queue, [executor], redis_url, executors={"concurrency": 8}):
            await queue.reported(30)
        assert executor.most_in_flight == 2
