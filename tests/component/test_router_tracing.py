"""The spans of tasks, as a receiver of OTLP gets them, and the traceparent that executors get."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from redis.asyncio import Redis

from queueworker.processes.tracing import CLOSING_SECONDS, EXPORT_SECONDS, MAX_WAITING_SPANS, Tracing
from queueworker.processes.tracing_settings import read_tracing
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.task import Task
from tests.support.otlp_receiver import CLIENT, CONSUMER, ERROR, UNSET, OtlpReceiver, ReceivedSpan
from tests.support.redis_state import leave
from tests.support.running import GROUP, running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = 1
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
RETRY = {"retry": {"attempts": 2, "backoffSeconds": 0}}


@pytest.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    async with OtlpReceiver() as receiver:
        yield receiver


def tracing(receiver: OtlpReceiver, **environ: str) -> Tracing:
    settings, problems = read_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url} | environ)
    assert settings is not None, problems
    return Tracing(settings, "queueworker", "worker-1")


def refusal(spans: int, words: str) -> web.Response:
    """The answer of a receiver that takes the rest."""
    partial = ExportTracePartialSuccess(rejected_spans=spans, error_message=words)
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    return web.Response(body=body, content_type="application/x-protobuf")


def errors(*spans: ReceivedSpan) -> list[object]:
    """The types of their errors; None for a span without one."""
    assert all((span.status == ERROR) == ("error.type" in span.attributes) for span in spans)
    return [span.attributes.get("error.type") for span in spans]


async def test_one_trace_has_the_task_its_attempts_on_two_executors_and_its_report(
    queue: StubQueue, receiver: OtlpReceiver, redis_url: str
) -> None:
    async with StubExecutor(name="one") as one, StubExecutor(name="two") as two, tracing(receiver) as tracer:
        for executor in (one, two):
            executor.answers.append(web.Response(status=500, text="words of the executor"))
        queue.submit("a", traceparent=TRACEPARENT, tracestate="vendor=value")
        async with running(queue, [one, two], redis_url, tracer=tracer, routing=RETRY):
            await queue.reported(1)
        task, first, second, report = await receiver.received(4)
        assert tracer is not None
        await until(lambda: tracer.counts.exported == 4)
    where = f"127.0.0.1:{queue.port}"
    assert {span.trace for span in receiver.spans} == {TRACE}
    assert (task.name, task.kind, task.parent, task.state) == (f"process {where}", CONSUMER, PARENT, "vendor=value")
    assert [(s.name, s.kind, s.parent) for s in (first, second)] == [("POST /execute", CLIENT, task.id)] * 2
    assert (report.name, report.kind, report.parent) == (f"fail {where}", CLIENT, task.id)
    assert errors(task, first, second, report) == ["fault", "500", "500", None]
    assert [s.attributes["queueworker.attempt"] for s in (first, second)] == [1, 2]
    sent = {e.name: (e.headers[0]["traceparent"], e.headers[0]["tracestate"]) for e in (one, two)}
    of_spans = {
        s.attributes["queueworker.executor"]: (f"00-{TRACE}-{s.id}-01", "vendor=value") for s in (first, second)
    }
    assert sent == of_spans
    times = [task.begin, first.begin, first.end, second.begin, second.end, report.begin, report.end, task.end]
    assert times == sorted(times)
    assert "words of the executor" not in repr(receiver.spans)
    assert "print(1)" not in repr(receiver.spans)


async def test_the_span_of_a_task_has_the_attributes_of_the_conventions_for_messaging(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str
) -> None:
    queue.submit("a")
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        task, attempt, report = await receiver.received(3)
    about = {
        "messaging.system": "queueworker",
        "messaging.destination.name": f"127.0.0.1:{queue.port}",
        "messaging.consumer.group.name": GROUP,
        "messaging.message.id": "a",
        "server.address": "127.0.0.1",
        "server.port": queue.port,
    }
    size = task.attributes.pop("messaging.message.body.size")
    assert isinstance(size, int)
    assert size > 50
    process = {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    settle = {"messaging.operation.name": "complete", "messaging.operation.type": "settle"}
    assert task.attributes == about | process
    assert report.attributes == about | settle | {"queueworker.known_to_queue": True}
    assert attempt.attributes == {
        "http.request.method": "POST",
        "url.full": f"{executor.url}/execute",
        "server.address": "127.0.0.1",
        "server.port": executor.port,
        "queueworker.executor": "executor-1",
        "queueworker.attempt": 1,
    }
    assert {task.status, attempt.status, report.status} == {UNSET}
    assert task.parent == ""
    assert receiver.resources[0]["service.name"] == "queueworker"
    assert receiver.resources[0]["service.instance.id"] == "worker-1"


@pytest.mark.parametrize(
    ("answer", "task_error", "attempt_error"),
    [
        (web.json_response(result("a", status="failed", error="no")), "task_failed", None),
        (web.Response(status=400, text="no"), "rejected", "400"),
        (web.Response(text="<html>"), "fault", "fault"),
        ("reset", "broken", "broken"),
    ],
)
async def test_a_failed_task_has_the_type_of_its_error(
    queue: StubQueue,
    executor: StubExecutor,
    receiver: OtlpReceiver,
    redis_url: str,
    answer: Any,
    task_error: str,
    attempt_error: str | None,
) -> None:
    executor.answers.append(answer)
    queue.submit("a")
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        task, attempt, report = await receiver.received(3)
    assert errors(task, attempt, report) == [task_error, attempt_error, None]


async def test_a_task_that_no_executor_was_given_has_no_attempt(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str
) -> None:
    queue.submit("a", code=None)
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        task, report = await receiver.received(2)
    assert errors(task, report) == ["not_run", None]


async def test_an_asynchronous_executor_has_its_attempt_until_the_outcome_is_published(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str
) -> None:
    executor.answers.append(web.json_response(result("a", status="running")))
    queue.submit("a")
    async with (
        tracing(receiver) as tracer,
        running(queue, [executor], redis_url, tracer=tracer) as router,
        Redis.from_url(redis_url) as redis,
    ):
        await until(lambda: router.in_flight and router.in_flight["a"].deadline is not None)
        await redis.publish("evaluation:completed", orjson.dumps(result("a")))
        task, attempt, report = await receiver.received(3)
    assert attempt.events == ["running"]
    assert errors(task, attempt, report) == [None, None, None]


@pytest.mark.parametrize("outcome", [None, Outcome(completed=False, error="no")])
async def test_a_recovered_task_goes_on_in_the_trace_that_it_came_with(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str, outcome: Outcome | None
) -> None:
    raw = orjson.dumps({"eval_id": "a", "code": "print(1)", "timeout": 5, "traceparent": TRACEPARENT})
    if outcome is None:
        entry = entries.encode_task(State.EXECUTING, queue.url, raw, 1, "executor-1")
    else:
        entry = entries.encode_outcome(queue.url, outcome, raw, 1, "executor-1")
    await leave(redis_url, queue, {"a": entry})
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        await queue.reported(1)
        task, *others = await receiver.received(3 if outcome is None else 2)
    assert (task.trace, task.parent, task.attributes["queueworker.recovered"]) == (TRACE, PARENT, True)
    assert [span.name.split()[0] for span in others] == (["POST", "complete"] if outcome is None else ["fail"])


async def test_a_task_that_is_left_to_another_router_is_unfinished(
    queue: StubQueue, receiver: OtlpReceiver, redis_url: str
) -> None:
    async with StubExecutor(gate=asyncio.Event()) as executor, tracing(receiver) as tracer:
        queue.submit("a")
        async with running(queue, [executor], redis_url, tracer=tracer, routing={"drainSeconds": 0}):
            await until(lambda: executor.executed)
        task, attempt = await receiver.received(2)
        assert executor.gate is not None
        executor.gate.set()
    assert errors(task) == ["unfinished"]
    assert attempt.end <= task.end


# --- what executors are told


async def test_a_task_without_a_trace_begins_one_that_its_executor_gets(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str
) -> None:
    queue.submit("a", traceparent="00-not-a-trace-01", tracestate="vendor=value")
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        task, attempt, _ = await receiver.received(3)
    version, trace, parent, flags = executor.headers[0]["traceparent"].split("-")
    assert (version, trace, parent) == ("00", task.trace, attempt.id)
    assert int(flags, 16) & SAMPLED
    assert "tracestate" not in executor.headers[0]


async def test_a_trace_that_is_not_sampled_has_no_spans_and_goes_on_to_the_executor(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str
) -> None:
    queue.submit("a", traceparent=f"00-{TRACE}-{PARENT}-00")
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        await queue.reported(1)
    version, trace, parent, flags = executor.headers[0]["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert parent != PARENT
    assert receiver.requests == []


async def test_without_tracing_the_executor_gets_what_the_task_says(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    queue.submit("a", traceparent=TRACEPARENT, tracestate="vendor=value")
    queue.submit("b", traceparent=TRACEPARENT + "\r\nX-Injected: 1")
    queue.submit("c")
    async with running(queue, [executor], redis_url):
        await queue.reported(3)
    first, *others = executor.headers
    assert (first["traceparent"], first["tracestate"]) == (TRACEPARENT, "vendor=value")
    assert not [headers for headers in others if "traceparent" in headers or "X-Injected" in headers]


# --- a receiver that does not do its part


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (web.Response(status=400), "it answers 400 Bad Request"),
        (web.Response(status=302, headers={"Location": "/login"}), "it answers 302 Found"),
        (web.Response(text="<html>", content_type="text/html"), "it answers 200 OK"),
        (web.Response(text="OK"), "it answers 200 OK"),
        (web.json_response({"message": "back soon"}), "it answers 200 OK"),
        (web.Response(body=b"\xff\xff", content_type="application/x-protobuf"), "it answers 200 OK"),
        (refusal(1, "too old"), "it refused 1 spans: 'too old'"),
        (web.json_response({"partialSuccess": {"rejectedSpans": "1"}}), "it refused 1 spans: ''"),
    ],
)
async def test_a_receiver_that_takes_no_spans_is_named_once_and_once_when_it_does_again(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture, answer: web.Response, words: str
) -> None:
    caplog.set_level("INFO")
    receiver.answers = [answer]
    async with tracing(receiver) as tracer:
        span(tracer)
        await until(lambda: tracer.counts.failed == 1)
        span(tracer)
        await until(lambda: tracer.counts.exported == 1)
    said = [record.getMessage() for record in caplog.records if "tracing" in record.getMessage()]
    assert len(said) == 2
    assert f"{receiver.url}/v1/traces does not take them: {words}." in said[0]
    assert said[1].endswith("takes spans again; 1 were lost")


@pytest.mark.parametrize(
    ("kind", "body"), [("text/plain", b""), ("application/json", b""), ("application/json", b"{}")]
)
async def test_an_empty_answer_takes_the_spans(receiver: OtlpReceiver, kind: str, body: bytes) -> None:
    receiver.answers = [web.Response(body=body, content_type=kind)]
    async with tracing(receiver) as tracer:
        span(tracer)
        await until(lambda: tracer.counts.exported == 1)
    assert tracer.counts.failed == 0


async def test_an_answer_that_comes_byte_by_byte_is_given_up(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.drips = True
    async with tracing(receiver) as tracer:
        span(tracer)
        await until(lambda: tracer.counts.failed == 1, timeout=3 * EXPORT_SECONDS)
    assert "no whole answer within 5 s" in caplog.text


async def test_routing_goes_on_and_ends_in_time_while_the_receiver_hangs(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str
) -> None:
    receiver.gate = asyncio.Event()
    queue.submit(*(f"t{n}" for n in range(20)))
    async with tracing(receiver) as tracer:
        async with running(queue, [executor], redis_url, tracer=tracer):
            await queue.reported(20)
            await until(lambda: receiver.requests)
        closed = asyncio.get_running_loop().time()
    assert CLOSING_SECONDS <= asyncio.get_running_loop().time() - closed < CLOSING_SECONDS + 2
    receiver.gate.set()


async def test_routing_goes_on_while_nobody_listens_at_the_receivers_address(
    queue: StubQueue, executor: StubExecutor, receiver: OtlpReceiver, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await receiver.stop()
    queue.submit(*(f"t{n}" for n in range(20)))
    async with tracing(receiver) as tracer, running(queue, [executor], redis_url, tracer=tracer):
        await queue.reported(20)
        await until(lambda: tracer.counts.failed == 60)
    assert "does not take them: Connection refused." in caplog.text


async def test_spans_above_the_limit_are_dropped_and_counted(receiver: OtlpReceiver) -> None:
    receiver.gate = asyncio.Event()
    async with tracing(receiver) as tracer:
        for _ in range(MAX_WAITING_SPANS + 7):
            span(tracer)
        assert tracer.counts.dropped == 7
        receiver.gate.set()
        await until(lambda: tracer.counts.exported == MAX_WAITING_SPANS)


async def test_headers_and_compression_are_those_of_the_environment(receiver: OtlpReceiver) -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    async with tracing(receiver, **environ) as tracer:
        span(tracer)
        await receiver.received(1)
    (headers,) = receiver.requests
    assert (headers["x-key"], headers["Content-Encoding"]) == ("a b", "gzip")


def span(tracer: Any) -> None:
    """The span of a task that ends at once."""
    tracer.task(GROUP, Task("a", "", None, "", "", b""), "http://queue", recovered=False).end()
