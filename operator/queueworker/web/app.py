"""The HTTP API as an ASGI application. Worker and operator differ in `/health` and `/status` only."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from fastapi import FastAPI, HTTPException, Path, Request, Response
from fastapi_offline import FastAPIOffline
from prometheus_client.exposition import choose_encoder
from starlette.middleware.base import BaseHTTPMiddleware

from queueworker import __version__
from queueworker.web import assets, metrics, views
from queueworker.web.api import Api
from queueworker.web.models import (
    ErrorDetail,
    LegacyHealth,
    LegacyStatus,
    OperatorHealth,
    OperatorStatus,
    Probe,
    RouterStatus,
)
from queueworker.web.options import WebOptions
from queueworker.web.page import add_page
from queueworker.web.source import OperatorView, Public

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.resources.abc import Traversable

    from prometheus_client import CollectorRegistry
    from starlette.middleware.base import RequestResponseEndpoint

    from queueworker.routing.tracer import SpanCounts
    from queueworker.web.loop_lag import LoopLag
    from queueworker.web.source import Source

PAGES = {"/docs", "/redoc"}
# The pages bring their own scripts. The policy prevents requests to other hosts (Redoc's page loads a logo from one).
OWN_HOST_ONLY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class Mode(StrEnum):
    WORKER = "worker"
    OPERATOR = "operator"


_DESCRIPTION = {
    Mode.WORKER: """Routes tasks from a legacy HTTP queue to a pool of executors.

`/health` and `/status` have exactly the fields of the legacy worker. `/status/{namespace}/{name}` shows the rest; the
worker's namespace and name are the group of its journal, for example `worker/queue:8081`.""",
    Mode.OPERATOR: """Routes tasks from legacy HTTP queues to pools of executors, one pool for each QueueWorker object.

`/status` lists the QueueWorkers that this replica routes for. Only the leading replica routes; `leader` names it.""",
}

_TAGS = [
    {"name": "status", "description": "State of the routers, for people and dashboards."},
    {"name": "page", "description": "What the page at / asks for."},
    {"name": "probes", "description": "For Kubernetes: 200, or 503 with a reason."},
    {"name": "metrics", "description": "For Prometheus."},
]


def create_app(
    source: Source,
    mode: Mode = Mode.OPERATOR,
    options: WebOptions = WebOptions(),  # noqa: B008 -- frozen
    lag: LoopLag | None = None,
    spans: SpanCounts | None = None,
    static: Traversable = assets.STATIC,
) -> FastAPI:
    """Returns the application. It reads `source` on each request; the page's answers are kept for a second.

    `static` is the folder of the page's files.
    """
    source = Public(source)
    app: FastAPI = FastAPIOffline(
        title="QueueWorker" if mode is Mode.WORKER else "QueueWorker operator",
        version=__version__,
        description=_DESCRIPTION[mode],
        openapi_tags=_TAGS,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=_own_host_only)
    _add_legacy(app, source) if mode is Mode.WORKER else _add_operator(app, source)
    _add_queue_worker(app, source)
    _add_probes(app, source)
    _add_metrics(app, source, lag, spans)
    files = assets.load(static)
    Api(source, mode, options, files.version).add_to(app)
    add_page(app, files)

    @app.get("/openapi.yaml", include_in_schema=False)
    async def openapi_yaml() -> Response:
        text = yaml.safe_dump(app.openapi(), sort_keys=False, allow_unicode=True)
        return Response(text, media_type="application/yaml")

    return app


async def _own_host_only(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    if request.url.path in PAGES:
        response.headers["Content-Security-Policy"] = OWN_HOST_ONLY
    return response


def _add_legacy(app: FastAPI, source: Source) -> None:
    @app.get("/health", tags=["status"], summary="The worker's health", response_description="The legacy fields.")
    async def health() -> LegacyHealth:
        """Always 200, as with the legacy worker; read `status`. Probes should use `/livez` and `/readyz`."""
        (snapshot,) = source.snapshots()
        return views.legacy_health(snapshot)

    @app.get("/status", tags=["status"], summary="The worker's status", response_description="The legacy fields.")
    async def status() -> LegacyStatus:
        """`status` is `degraded` if no executor is healthy."""
        (snapshot,) = source.snapshots()
        return views.legacy_status(snapshot)


def _add_operator(app: FastAPI, source: Source) -> None:
    @app.get("/health", tags=["status"], summary="The operator's health", response_description="The legacy fields.")
    async def health() -> OperatorHealth:
        """Always 200, as with the legacy worker; read `status`. Probes should use `/livez` and `/readyz`."""
        ready, message = source.ready()
        return views.operator_health(list(source.snapshots()), ready=ready, message=message)

    @app.get("/status", tags=["status"], summary="All QueueWorkers", response_description="The present state.")
    async def status() -> OperatorStatus:
        """Sorted by name."""
        found = sorted(source.snapshots(), key=lambda s: s.group)
        view = source.operator() or OperatorView(leading=False, leader="")
        return OperatorStatus(
            leading=view.leading, leader=view.leader, queue_workers=[views.router_status(s) for s in found]
        )


def _add_queue_worker(app: FastAPI, source: Source) -> None:
    absent: dict[int | str, dict[str, Any]] = {
        HTTPStatus.NOT_FOUND: {"model": ErrorDetail, "description": "This process does not route for it."},
        HTTPStatus.SERVICE_UNAVAILABLE: {"model": ErrorDetail, "description": "Another replica of the operator leads."},
    }

    @app.get(
        "/status/{namespace}/{name}",
        tags=["status"],
        summary="One QueueWorker",
        response_description="The present state.",
        responses=absent,
    )
    async def queue_worker(
        namespace: Annotated[
            str, Path(description="Namespace of the object; `worker` for a worker without Kubernetes.")
        ],
        name: Annotated[str, Path(description="Name of the object; for a worker, host and port of its queue.")],
    ) -> RouterStatus:
        """The router, its executors, and its connections to the queue and Redis."""
        group = f"{namespace}/{name}"
        snapshots = list(source.snapshots())
        for snapshot in snapshots:
            if snapshot.group == group:
                return views.router_status(snapshot)
        view = source.operator()
        if view is not None and not view.leading:
            leader = f"ask {view.leader}, which leads" if view.leader else "no replica leads at present"
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"this replica stands by: {leader}")
        known = ", ".join(sorted(s.group for s in snapshots)) or "none"
        raise HTTPException(
            HTTPStatus.NOT_FOUND, f"this process does not route for a QueueWorker {group}; it routes for: {known}"
        )


def _add_probes(app: FastAPI, source: Source) -> None:
    failed: dict[int | str, dict[str, Any]] = {
        HTTPStatus.SERVICE_UNAVAILABLE: {"model": Probe, "description": "The probe failed, with the reason."}
    }

    def answer(response: Response, result: tuple[bool, str]) -> Probe:
        ok, reason = result
        response.status_code = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        return Probe(ok=ok, reason=reason)

    @app.get(
        "/livez",
        tags=["probes"],
        summary="Liveness probe",
        response_description="The process is alive.",
        responses=failed,
    )
    async def livez(response: Response) -> Probe:
        """503 asks Kubernetes for a restart. An unreachable queue, Redis or executor does not cause it."""
        return answer(response, source.live())

    @app.get(
        "/readyz",
        tags=["probes"],
        summary="Readiness probe",
        response_description="The process is ready.",
        responses=failed,
    )
    async def readyz(response: Response) -> Probe:
        """503 while the process starts, drains or ends."""
        return answer(response, source.ready())


def _add_metrics(app: FastAPI, source: Source, lag: LoopLag | None, spans: SpanCounts | None) -> None:
    registry = metrics.registry(source, lag, spans)

    @app.get(
        "/metrics",
        tags=["metrics"],
        summary="Metrics in the text format of Prometheus or OpenMetrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "The format follows the Accept header."}},
    )
    async def scrape(request: Request) -> Response:
        """Read from the routers on each request."""
        encode, content_type = _encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """prometheus-client raises TypeError for a version that has other parts than numbers, or quotes around it."""
    try:
        return choose_encoder(accept)
    except TypeError:
        return choose_encoder("")
