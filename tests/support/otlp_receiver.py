"""A receiver of OTLP over HTTP: it decodes the spans that it is sent, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.stubs import Server, until

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

UNSET, ERROR = 0, 2
CONSUMER, CLIENT = 5, 3
"""Of the enumerations of OTLP."""


@dataclass(frozen=True)
class ReceivedSpan:
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    attributes: dict[str, object]
    events: list[str]
    status: int
    begin: int
    end: int
    """Both in nanoseconds since 1970."""
    state: str


@dataclass
class OtlpReceiver(Server):
    """`answers` are given in turn, for requests whose spans are not kept."""

    spans: list[ReceivedSpan] = field(default_factory=list)
    resources: list[dict[str, object]] = field(default_factory=list)
    requests: list[CIMultiDictProxy[str]] = field(default_factory=list)
    """The headers of each."""
    answers: list[web.Response] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """If there is one, no request is answered until it is set."""
    drips: bool = False
    """Whether the body of an answer comes byte by byte, and does not end."""

    def __post_init__(self) -> None:
        super().__init__()

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/traces", self._take)]

    async def received(self, count: int) -> list[ReceivedSpan]:
        """The spans, in the order of their beginnings, once there are so many."""
        await until(lambda: len(self.spans) >= count)
        return sorted(self.spans, key=lambda span: span.begin)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.headers)
        body = await request.read()
        if self.gate is not None:
            await self.gate.wait()
        if self.drips:
            return await _drip(request)
        if self.answers:
            return self.answers.pop(0)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(resource.resource.attributes))
            self.spans += [
                ReceivedSpan(
                    *(span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind),
                    *(_values(span.attributes), [event.name for event in span.events], span.status.code),
                    *(span.start_time_unix_nano, span.end_time_unix_nano, span.trace_state),
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return web.Response(content_type="application/x-protobuf")


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-protobuf", "Content-Length": "60000"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.2)
    return response


def _values(pairs: list[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
