"""The spans of a task in OpenTelemetry, after its conventions for messaging and for HTTP clients.

No span holds code, results, errors of tasks or credentials.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from queueworker.redaction import without_credentials
from queueworker.routing.wire.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

    from queueworker.routing.tracer import SpanCounts
    from queueworker.routing.wire.task import Task

SYSTEM = "queueworker"
"""The `messaging.system` of the queue, which has no name of its own."""
UNFINISHED = "unfinished"
"""The `error.type` of a task that was left to another router."""
TASK_FAILED = "task_failed"
"""… of a task that an executor ran to its end, with a result that says failed, timeout or killed."""
NOT_RUN = "not_run"
"""… of a task that no executor was given."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PEERS = 4096
_propagator = TraceContextTextMapPropagator()


class OtelTracer:
    """Makes the span of each task that one process routes."""

    def __init__(self, tracer: Tracer, counts: SpanCounts) -> None:
        self.counts = counts
        self._tracer = tracer

    def task(self, group: str, task: Task, queue_url: str, *, recovered: bool) -> OtelTaskSpan:
        host, port = _peer(queue_url)
        queue = f"{host}:{port}"
        attributes: dict[str, AttributeValue] = {
            "messaging.system": SYSTEM,
            "messaging.destination.name": queue,
            "messaging.consumer.group.name": group,
            "messaging.message.id": task.eval_id,
            "server.address": host,
            "server.port": port,
        }
        own: dict[str, AttributeValue] = {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.body.size": len(task.raw),
        }
        if recovered:
            own["queueworker.recovered"] = True
        parent = Context() if task.trace is None else _context(task.trace)
        span = self._tracer.start_span(f"process {queue}", parent, SpanKind.CONSUMER, attributes | own)
        return OtelTaskSpan(self._tracer, span, queue, attributes)


class OtelTaskSpan:
    """The span of a task, and below it one for each attempt and one for the report."""

    def __init__(self, tracer: Tracer, span: Span, queue: str, attributes: dict[str, AttributeValue]) -> None:
        self._tracer = tracer
        self._span = span
        self._queue = queue
        self._attributes = attributes
        self._context = set_span_in_context(span, Context())
        self._child: Span = INVALID_SPAN
        """The attempt, or the report, that is under way."""
        self._failure = NOT_RUN
        """What a failure of the task would have for its `error.type`."""
        self._completed: bool | None = None

    def attempt(self, executor: str, url: str, number: int) -> str:
        self._failure = TASK_FAILED
        if not self._span.is_recording():
            return _headers(self._context)
        host, port = _peer(url)
        attributes: dict[str, AttributeValue] = {
            "http.request.method": "POST",
            "url.full": without_credentials(url),
            "server.address": host,
            "server.port": port,
            "queueworker.executor": executor,
            "queueworker.attempt": number,
        }
        self._child = self._tracer.start_span("POST /execute", self._context, SpanKind.CLIENT, attributes)
        return _headers(set_span_in_context(self._child, self._context))

    def attempt_running(self) -> None:
        self._child.add_event("running")

    def attempt_failed(self, failure: str, status: int | None) -> None:
        self._failure = failure
        self._child.set_attribute("queueworker.failure", failure)
        if status is not None:
            self._child.set_attribute("http.response.status_code", status)
        _fail(self._child, str(status) if status is not None and status >= 400 else failure)

    def attempt_ended(self) -> None:
        self._end_child()

    def report(self) -> None:
        if self._span.is_recording():
            attributes = self._attributes | {"messaging.operation.type": "settle"}
            self._child = self._tracer.start_span("settle", self._context, SpanKind.CLIENT, attributes)

    def reported(self, *, completed: bool, known: bool) -> None:
        self._completed = completed
        operation = "complete" if completed else "fail"
        self._child.update_name(f"{operation} {self._queue}")
        self._child.set_attribute("messaging.operation.name", operation)
        self._child.set_attribute("queueworker.known_to_queue", known)
        self._end_child()

    def end(self) -> None:
        self._end_child()
        if not self._completed:
            _fail(self._span, UNFINISHED if self._completed is None else self._failure)
        self._span.end()

    def _end_child(self) -> None:
        self._child.end()
        self._child = INVALID_SPAN


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


@lru_cache(_MAX_PEERS)
def _peer(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]


def _context(trace: TraceContext) -> Context:
    return _propagator.extract(trace._asdict(), Context())


def _headers(context: Context) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    return TraceContext(**carrier).headers
