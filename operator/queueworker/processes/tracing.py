"""Exports the spans of this process by OTLP over HTTP, from a thread of the OpenTelemetry SDK.

Everything here is bounded: the spans that wait, a request, its answer, and the end. Imported only when tracing is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import requests
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
)

from queueworker import __version__
from queueworker.processes.spans import OtelTracer
from queueworker.processes.tracing_settings import Sampler
from queueworker.redaction import without_credentials
from queueworker.routing.aio import happens
from queueworker.routing.http.errors import cause
from queueworker.routing.tracer import SpanCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler as OtelSampler

    from queueworker.processes.tracing_settings import TracingSettings

log = logging.getLogger(__name__)

MAX_WAITING_SPANS = 4096
"""Spans that wait for the receiver or are on their way to it. Above it new ones are dropped, and counted."""
BATCH_SPANS = 512
BATCH_SECONDS = 1.0
EXPORT_SECONDS = 5.0
"""For one batch, with the tries after a 429, 502, 503, 504 or a broken connection; and for the body of its answer."""
MAX_ANSWER_BYTES = 64 * 1024
MAX_SHOWN_CHARS = 200
"""Of the receiver's words."""
CLOSING_SECONDS = 3.0
"""For the spans that wait when the process ends."""


class Tracing:
    """Use with `async with`, around the routers of the process."""

    def __init__(self, settings: TracingSettings, service: str, instance: str) -> None:
        # It would log each failed batch, and each try.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        counts = SpanCounts()
        exporter = _CountingExporter(settings, counts)
        self._provider = TracerProvider(_sampler(settings), _resource(service, instance), shutdown_on_exit=False)
        self._provider.add_span_processor(_BoundedProcessor(exporter, counts))
        self._tracer = OtelTracer(self._provider.get_tracer("queueworker", __version__), counts)

    async def __aenter__(self) -> OtelTracer:
        return self._tracer

    async def __aexit__(self, *_: object) -> None:
        """Send what waits, for `CLOSING_SECONDS` at most: the thread that goes on then does not keep the process."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        closing = threading.Thread(target=self._shut_down, args=(loop, done), name="closing tracing", daemon=True)
        closing.start()
        if not await happens(done, CLOSING_SECONDS):
            log.warning("tracing: not all spans could be sent within %.0f s of the end", CLOSING_SECONDS)

    def _shut_down(self, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
        self._provider.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done.set)


class _BoundedProcessor(BatchSpanProcessor):
    """The SDK's own drops the oldest span, and says so once a minute. This one drops the newest, and counts."""

    def __init__(self, exporter: _CountingExporter, counts: SpanCounts) -> None:
        super().__init__(exporter, MAX_WAITING_SPANS, BATCH_SECONDS * 1000, BATCH_SPANS, EXPORT_SECONDS * 1000)
        self._ended = 0
        self._exporter = exporter
        self._counts = counts

    def on_end(self, span: ReadableSpan) -> None:
        if self._ended - self._exporter.done >= MAX_WAITING_SPANS:
            self._counts.dropped += 1
            return
        self._ended += 1
        super().on_end(span)


class _CountingExporter(SpanExporter):
    """Counts, and says once that the receiver does not take spans, and once that it does again."""

    def __init__(self, settings: TracingSettings, counts: SpanCounts) -> None:
        self.done = 0
        """Spans that were sent, or given up."""
        self._counts = counts
        self._shown = without_credentials(settings.endpoint)
        self._session = _Session()
        self._failing = False
        authorities = ssl.get_default_verify_paths()
        self._exporter = OTLPSpanExporter(
            settings.endpoint,
            settings.certificate or authorities.cafile or authorities.capath,
            settings.client_key,
            settings.client_certificate,
            settings.headers,
            EXPORT_SECONDS,
            Compression(settings.compression),
            self._session,
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            result, self._session.problem = SpanExportResult.FAILURE, repr(error)
        self.done += len(spans)
        refused = min(self._session.refused, len(spans)) if result is SpanExportResult.SUCCESS else len(spans)
        self._counts.exported += len(spans) - refused
        self._counts.failed += refused
        self._say(failing=refused > 0)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _say(self, *, failing: bool) -> None:
        if failing == self._failing:
            return
        self._failing = failing
        if failing:
            log.warning(
                "tracing: spans are lost, because %s does not take them: %s. Routing goes on; look at the receiver and "
                "at OTEL_EXPORTER_OTLP_ENDPOINT",
                self._shown,
                self._session.problem,
            )
        else:
            log.info("tracing: %s takes spans again; %d were lost", self._shown, self._counts.failed)


class _Session(requests.Session):
    """Reads no proxy of the environment, a bounded part of each answer, and keeps what the last one said.

    Only a receiver's own answer is a success (OTLP/HTTP): an empty one, or an ExportTraceServiceResponse.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.problem = ""
        """Why the last request failed, or some of its spans were refused."""
        self.refused = 0
        """Spans that the receiver refused of those that it was sent last."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        try:
            response = super().send(request, **(options | {"stream": True}))
            with response:
                body = _beginning(response)
        except Exception as error:
            self.problem = _words(error)
            raise
        self.problem = f"it answers {response.status_code} {response.reason}"
        if response.ok:
            if response.is_redirect or (said := _read(response.headers.get("Content-Type", ""), body)) is None:
                raise requests.RequestException("no receiver of spans")  # else it would count as success
            self.refused = said.partial_success.rejected_spans
            if self.refused:
                words = said.partial_success.error_message[:MAX_SHOWN_CHARS]
                self.problem = f"it refused {self.refused} spans: {words!r}"
        return response


def _beginning(response: requests.Response) -> bytes:
    """As much of the body as is read. Raises Timeout: it may come byte by byte."""
    until, body = time.monotonic() + EXPORT_SECONDS, b""
    while len(body) < MAX_ANSWER_BYTES and (part := response.raw.read1(MAX_ANSWER_BYTES, decode_content=True)):
        body += part
        if time.monotonic() > until:
            raise requests.Timeout(f"no whole answer within {EXPORT_SECONDS:.0f} s")
    return body


def _read(kind: str, body: bytes) -> ExportTraceServiceResponse | None:
    """What the receiver says of the spans; None when it is no receiver that speaks."""
    said = ExportTraceServiceResponse()
    if not body:
        return said
    try:
        if "json" in kind.lower():
            json_format.Parse(body, said)
        elif "protobuf" in kind.lower():
            said.ParseFromString(body)
        else:
            return None
    except (json_format.ParseError, DecodeError, UnicodeDecodeError):
        return None
    return said


def _words(error: BaseException) -> str:
    """The innermost error, in the system's words: requests wraps it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return cause(error)


def _sampler(settings: TracingSettings) -> OtelSampler:
    match settings.sampler:
        case Sampler.ALWAYS_ON:
            return ALWAYS_ON
        case Sampler.ALWAYS_OFF:
            return ALWAYS_OFF
        case Sampler.RATIO:
            return TraceIdRatioBased(settings.ratio)
        case Sampler.PARENT_OR_ON:
            return DEFAULT_ON
        case Sampler.PARENT_OR_OFF:
            return DEFAULT_OFF
        case Sampler.PARENT_OR_RATIO:
            return ParentBasedTraceIdRatio(settings.ratio)


def _resource(service: str, instance: str) -> Resource:
    """What the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) counts before what we say."""
    said = OTELResourceDetector().detect().attributes
    own = {"service.name": service, "service.version": __version__, "service.instance.id": instance}
    return Resource.create({name: value for name, value in own.items() if name not in said})
