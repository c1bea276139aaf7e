"""`/api`: what the page asks for, and what a command may."""

from __future__ import annotations

import platform
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from fastapi import HTTPException, Path, Request, Response
from pydantic import BaseModel, Field

from queueworker import __version__
from queueworker.web import overview
from queueworker.web.models import ErrorDetail
from queueworker.web.overview import FIELDS, LIST_POINTS, Failures, ObjectDetail
from queueworker.web.shared import Shared, respond

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

    from queueworker.web.source import Source


class Overview(BaseModel):
    """All QueueWorkers in few bytes."""

    time: float = Field(description="Unix time in seconds at which this was true.")
    boot: str = Field(description="Changes when the process starts anew: counters begin again.")
    version: str = Field(description="Version of the process.")
    kind: str = Field(description="operator or worker.")
    identity: str = Field(description="Name of the process that answers for the objects.")
    ready: bool = Field(description="As /readyz.")
    reason: str = Field(description="As /readyz.")
    namespaces: list[str] = Field(description="Namespaces that are watched; empty for all, and for a worker.")
    fields: list[str] = Field(description="Names of the values in each row of `objects`.", examples=[list(FIELDS)])
    objects: list[list[Any]] = Field(
        description="A row for each object, sorted by name. `executors` has a letter for the state (h healthy, w "
        "warming up, s silent, e ejected, u unhealthy, c unchecked, l leaving) and slots in use / slots for each "
        "executor; `links` a sign for each of queue, events and journal (+ connected, - down, ? not known); `points` "
        "counts the points of the history."
    )


class Sparklines(BaseModel):
    """The history of all QueueWorkers, for sparklines."""

    time: float = Field(description="Unix time in seconds at which this was true.")
    boot: str = Field(description="As in the overview.")
    objects: dict[str, list[list[float | None]]] = Field(
        description=f"For each object, at most {LIST_POINTS} points of 5 s, the oldest first: tasks a minute, and p95 "
        "in seconds. null is a gap."
    )


NOW = "The state of at most a second ago, or 304 if it has the ETag that was sent."
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_FOUND: {"model": ErrorDetail, "description": "This process does not route for it."}
}


class Api:
    """Builds the answers from the source, at most once a second each."""

    def __init__(self, source: Source, kind: str, failures: Failures) -> None:
        self._source = source
        self._kind = kind
        self._failures = failures
        self._boot = uuid4().hex[:12]
        self._shared = Shared()

    def add_to(self, app: FastAPI) -> None:
        get, tags = app.get, ["page"]

        @get(
            "/api/overview",
            tags=tags,
            summary="All QueueWorkers in few bytes",
            response_model=Overview,
            response_description=NOW,
        )
        async def overview(request: Request) -> Response:
            """Built at most once a second. Send the ETag back as If-None-Match."""
            return respond(request, self._shared.get_or_build("overview", self._overview), self._headers())

        @get(
            "/api/sparklines",
            tags=tags,
            summary="Sparklines of all QueueWorkers",
            response_model=Sparklines,
            response_description=NOW,
        )
        async def sparklines(request: Request) -> Response:
            """Ask once, and then append what the overview tells."""
            return respond(request, self._shared.get_or_build("sparklines", self._sparklines), self._headers())

        @get(
            "/api/objects/{namespace}/{name}",
            tags=tags,
            summary="One QueueWorker in depth",
            response_model=ObjectDetail,
            response_description=NOW,
            responses=_NOT_FOUND,
        )
        async def queue_worker_detail(
            request: Request,
            namespace: Annotated[str, Path(description="Namespace of the object.")],
            name: Annotated[str, Path(description="Name of the object.")],
        ) -> Response:
            """State and what to do, pipeline, executors, ten minutes of history, failures, transitions."""
            group = f"{namespace}/{name}"
            return respond(request, self._shared.get_or_build(group, lambda: self._detail(group)), self._headers())

    def _overview(self) -> Mapping[str, Any]:
        ready, reason = self._source.ready()
        view = self._source.operator()
        objects = sorted(self._source.objects(), key=lambda v: v.group)
        workers = [v.snapshot.worker_id for v in objects if v.snapshot is not None]
        return {
            "boot": self._boot,
            "version": __version__,
            "kind": self._kind,
            "identity": view.identity if view is not None else next(iter(workers), platform.node()),
            "ready": ready,
            "reason": reason,
            "namespaces": sorted({w.namespace for w in view.watches if w.namespace}) if view is not None else [],
            "fields": FIELDS,
            "objects": [overview.row(v) for v in objects],
        }

    def _sparklines(self) -> Mapping[str, Any]:
        return {"boot": self._boot, "objects": overview.sparklines(self._source.objects())}

    def _detail(self, group: str) -> Mapping[str, Any]:
        for view in self._source.objects():
            if view.group == group:
                return overview.detail(view, self._boot, self._failures)
        raise HTTPException(HTTPStatus.NOT_FOUND, f"this process does not route for a QueueWorker {group}")

    def _headers(self) -> dict[str, str]:
        return {}
