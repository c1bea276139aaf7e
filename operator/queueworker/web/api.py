"""`/api`: what the page asks for, and what a command may."""

from __future__ import annotations

import asyncio
import platform
import time
from enum import Enum
from http import HTTPStatus
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote
from uuid import uuid4

from fastapi import HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.convertors import PathConvertor, register_url_convertor

from queueworker import __version__
from queueworker.web import overview, relay
from queueworker.web.actions import Actions
from queueworker.web.models import ErrorDetail
from queueworker.web.overview import FIELDS, LIST_POINTS, ObjectDetail
from queueworker.web.relay import DIRECT
from queueworker.web.shared import Body, Shared, respond

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from fastapi import FastAPI

    from queueworker.web.options import WebOptions
    from queueworker.web.source import ObjectView, OperatorView, Source

    _Fields = Mapping[str, Any]


class AnyText(PathConvertor):
    """As `path`, but with line ends: an id may have them."""

    regex = "(?s:.*)"


register_url_convertor("any", AnyText())

OBJECTS_AT_ONCE = 20
"""Objects that are read in one turn of the event loop: a few milliseconds, with 20 executors each."""


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
        "counts the points of the history, and `point_rate` is the newest of them, in tasks a minute."
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
_STANDBY: dict[int | str, dict[str, Any]] = {
    HTTPStatus.SERVICE_UNAVAILABLE: {
        "model": ErrorDetail,
        "description": "A standby that gets no answer from a leader.",
    }
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_FOUND: {"model": ErrorDetail, "description": "The leader does not route for it."}
}


class Retried(BaseModel):
    """What became of a retry."""

    sent: bool = Field(description="True if the queue has the task now.")
    message: str = Field(description="What happened, in a sentence.")


_ACTIONS: dict[int | str, dict[str, Any]] = {
    HTTPStatus.UNAUTHORIZED: {"model": ErrorDetail, "description": "Not the token."},
    HTTPStatus.FORBIDDEN: {"model": ErrorDetail, "description": "Actions are off."},
    HTTPStatus.SERVICE_UNAVAILABLE: {"model": ErrorDetail, "description": "Redis, or the leader, does not answer."},
}


class Api:
    """Builds the answers from the source, at most once a second each."""

    def __init__(self, source: Source, kind: str, options: WebOptions, page_version: str) -> None:
        self._source = source
        self._kind = kind
        self._failures = options.failures
        self._actions = Actions(source, options.token)
        self._boot = uuid4().hex[:12]
        self._page_version = page_version
        self._shared = Shared()

    def add_to(self, app: FastAPI) -> None:
        get = app.get
        tags: list[str | Enum] = ["page"]

        @get(
            "/api/overview",
            tags=tags,
            summary="All QueueWorkers in few bytes",
            response_model=Overview,
            response_description=NOW,
            responses=_STANDBY,
        )
        async def overview(request: Request) -> Response:
            """Built at most once a second. Send the ETag back as If-None-Match."""
            return await self._respond(request, "/api/overview", self._overview)

        @get(
            "/api/sparklines",
            tags=tags,
            summary="Sparklines of all QueueWorkers",
            response_model=Sparklines,
            response_description=NOW,
            responses=_STANDBY,
        )
        async def sparklines(request: Request) -> Response:
            """Ask once, and then append what the overview tells."""
            return await self._respond(request, "/api/sparklines", self._sparklines)

        @get(
            "/api/objects/{namespace}/{name}",
            tags=tags,
            summary="One QueueWorker in depth",
            response_model=ObjectDetail,
            response_description=NOW,
            responses=_NOT_FOUND | _STANDBY,
        )
        async def queue_worker_detail(
            request: Request,
            namespace: Annotated[str, Path(description="Namespace of the object.")],
            name: Annotated[str, Path(description="Name of the object.")],
        ) -> Response:
            """State and what to do, pipeline, executors, ten minutes of history, failures, transitions."""
            path = f"/api/objects/{quote(namespace, safe='')}/{quote(name, safe='')}"
            return await self._respond(request, path, lambda: self._detail(f"{namespace}/{name}"))

        @app.post(
            "/api/objects/{namespace}/{name}/failures/{eval_id:any}/retry",
            tags=tags,
            summary="Send a failed task to its queue again",
            response_description="What became of it.",
            responses=_NOT_FOUND | _ACTIONS,
        )
        async def retry_failed_task(
            request: Request,
            namespace: Annotated[str, Path(description="Namespace of the object.")],
            name: Annotated[str, Path(description="Name of the object.")],
            eval_id: Annotated[str, Path(description="Id of the task.")],
            *,
            ambiguous: Annotated[
                bool, Query(description="Also send a task that may have run, and may run twice.")
            ] = False,
        ) -> Retried:
            """As `queueworker failed retry`. Off unless WEB_ALLOW_ACTIONS is set; needs the bearer token."""
            token = self._actions.check(request.headers)
            if (standby := self._standby(request)) is not None:
                where = "/".join(
                    quote(part, safe="") for part in ("api", "objects", namespace, name, "failures", eval_id)
                )
                path = f"/{where}/retry?ambiguous={str(ambiguous).lower()}"
                return Retried.model_validate_json(await relay.post(path, token, standby))
            sent = await self._actions.retry(f"{namespace}/{name}", eval_id, ambiguous=ambiguous)
            return Retried(sent=sent.done, message=sent.message)

    async def _respond(
        self, request: Request, path: str, build: Callable[[], Coroutine[Any, Any, _Fields]]
    ) -> Response:
        """With what is kept, else with what this process or the leader says now."""
        standby = self._standby(request)

        async def make() -> Body:
            return Body.of(await build(), time.time()) if standby is None else await relay.get(path, standby)

        # What is relayed is another answer than our own: a relayed request must not wait for one that relays.
        key = path if standby is None else f"relayed {path}"
        try:
            body = await self._shared.get_or_make(key, make)
        except HTTPException as error:
            raise HTTPException(error.status_code, error.detail, self._headers()) from error
        return respond(request, body, self._headers())

    def _standby(self, request: Request) -> OperatorView | None:
        """Not None if another replica has to answer."""
        view = self._source.operator()
        return view if view is not None and not view.leading and DIRECT not in request.query_params else None

    async def _overview(self) -> _Fields:
        ready, reason = self._source.ready()
        view = self._source.operator()
        return {
            "boot": self._boot,
            "version": __version__,
            "kind": self._kind,
            "identity": self._identity(),
            "ready": ready,
            "reason": reason,
            "namespaces": sorted({w.namespace for w in view.watches if w.namespace}) if view is not None else [],
            "fields": FIELDS,
            "objects": sorted([overview.row(v) async for v in self._objects()], key=itemgetter(0)),
        }

    async def _sparklines(self) -> _Fields:
        return {"boot": self._boot, "objects": {v.group: overview.sparkline(v) async for v in self._objects()}}

    async def _detail(self, group: str) -> _Fields:
        view = self._source.object(group)
        if view is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"this process does not route for a QueueWorker {group}")
        return overview.detail(view, self._boot, self._failures, actions=self._actions.allowed)

    async def _objects(self) -> AsyncIterator[ObjectView]:
        """With pauses, so that hundreds of objects do not hold the routers up."""
        for number, view in enumerate(self._source.objects(), 1):
            yield view
            if number % OBJECTS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _headers(self) -> dict[str, str]:
        """Who answers, and which page it serves: a standby answers with the bytes of the leader."""
        return {"X-Answered-By": self._identity(), "X-Page-Version": self._page_version}

    def _identity(self) -> str:
        view = self._source.operator()
        return platform.node() if view is None else view.identity
