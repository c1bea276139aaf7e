"""The HTTP face as an ASGI application, the same for the worker and the operator but for `/health` and `/status`."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from fastapi import FastAPI, HTTPException, Path, Request, Response
from fastapi_offline import FastAPIOffline
from prometheus_client.exposition import choose_encoder
from starlette.middleware.base import BaseHTTPMiddleware

from queueworker.web import metrics, views
from queueworker.web.models import (
    ErrorDetail,
    LegacyHealth,
    LegacyStatus,
    OperatorHealth,
    OperatorStatus,
    Probe,
    RouterStatus,
)
from queueworker.web.source import Public

if TYPE_CHECKING:
    from starlette.middleware.base import RequestResponseEndpoint

    from queueworker.web.source import Source

PAGES = {"/docs", "/redoc"}
# The pages are scripts of ours; the policy keeps them from fetching anything elsewhere (Redoc's has a logo there).
OWN_HOST_ONLY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class Mode(StrEnum):
    WORKER = "worker"
    OPERATOR = "operator"


_DESCRIPTION = {
    Mode.WORKER: """Routes tasks from a legacy HTTP queue to a pool of executors.

`/health` and `/status` have the legacy worker's shapes, field by field. What they do not show is at
`/status/{namespace}/{name}`, where the worker's own name is the group of its journal (`worker/queue:8081`).""",
    Mode.OPERATOR: """Routes tasks from legacy HTTP queues to pools of executors, one pool for each QueueWorker object.

`/status` lists every QueueWorker that this replica routes for. A replica that does not lead routes for none.""",
}

_TAGS = [
    {"name": "status", "description": "What runs here and how it fares, for people and dashboards."},
    {"name": "probes", "description": "For Kubernetes: 200, or 503 with the reason."},
    {"name": "metrics", "description": "For Prometheus."},
]


def create_app(source: Source, mode: Mode = Mode.OPERATOR) -> FastAPI:
    """The application. It asks `source` on each request and keeps nothing itself."""
    source = Public(source)
    app: FastAPI = FastAPIOffline(
        title="QueueWorker" if mode is Mode.WORKER else "QueueWorker operator",
        version=metrics.app_version(),
        description=_DESCRIPTION[mode],
        openapi_tags=_TAGS,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=_own_host_only)
    _add_legacy(app, source) if mode is Mode.WORKER else _add_operator(app, source)
    _add_queue_worker(app, source)
    _add_probes(app, source)
    _add_metrics(app, source)

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
    @app.get("/health", tags=["status"], summary="The worker's health", response_description="The legacy shape.")
    async def health() -> LegacyHealth:
        """Always 200, as the legacy worker answered: read `status`. Probes belong at `/livez` and `/readyz`."""
        (snapshot,) = source.snapshots()
        return views.legacy_health(snapshot)

    @app.get("/status", tags=["status"], summary="The worker's status", response_description="The legacy shape.")
    async def status() -> LegacyStatus:
        """`degraded` when no executor is healthy."""
        (snapshot,) = source.snapshots()
        return views.legacy_status(snapshot)


def _add_operator(app: FastAPI, source: Source) -> None:
    @app.get("/health", tags=["status"], summary="The operator's health", response_description="In the legacy form.")
    async def health() -> OperatorHealth:
        """Always 200, as the legacy worker answered: read `status`. Probes belong at `/livez` and `/readyz`."""
        ready, message = source.ready()
        return views.operator_health(list(source.snapshots()), ready=ready, message=message)

    @app.get("/status", tags=["status"], summary="Every QueueWorker", response_description="At this moment.")
    async def status() -> OperatorStatus:
        """Ordered by name."""
        found = sorted(source.snapshots(), key=lambda s: s.group)
        return OperatorStatus(queue_workers=[views.router_status(s) for s in found])


def _add_queue_worker(app: FastAPI, source: Source) -> None:
    @app.get(
        "/status/{namespace}/{name}",
        tags=["status"],
        summary="One QueueWorker",
        response_description="At this moment.",
        responses={HTTPStatus.NOT_FOUND: {"model": ErrorDetail, "description": "No such QueueWorker is routed here."}},
    )
    async def queue_worker(
        namespace: Annotated[str, Path(description="Its namespace; `worker` when there is no Kubernetes.")],
        name: Annotated[str, Path(description="Its name; of a worker, host and port of its queue.")],
    ) -> RouterStatus:
        """Its router, its pool and its peers."""
        group = f"{namespace}/{name}"
        snapshots = list(source.snapshots())
        for snapshot in snapshots:
            if snapshot.group == group:
                return views.router_status(snapshot)
        known = ", ".join(sorted(s.group for s in snapshots)) or "none"
        raise HTTPException(
            HTTPStatus.NOT_FOUND, f"no QueueWorker {group} is routed by this process; it routes for: {known}"
        )


def _add_probes(app: FastAPI, source: Source) -> None:
    refused: dict[int | str, dict[str, Any]] = {
        HTTPStatus.SERVICE_UNAVAILABLE: {"model": Probe, "description": "No, and why."}
    }

    def answer(response: Response, said: tuple[bool, str]) -> Probe:
        ok, reason = said
        response.status_code = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        return Probe(ok=ok, reason=reason)

    @app.get(
        "/livez",
        tags=["probes"],
        summary="Does the process do its work?",
        response_description="Yes.",
        responses=refused,
    )
    async def livez(response: Response) -> Probe:
        """503 asks Kubernetes to restart it. A queue, Redis or executors that are away are no reason to."""
        return answer(response, source.live())

    @app.get(
        "/readyz",
        tags=["probes"],
        summary="Is it done starting, and not ending?",
        response_description="Yes.",
        responses=refused,
    )
    async def readyz(response: Response) -> Probe:
        """503 while it starts, drains or ends."""
        return answer(response, source.ready())


def _add_metrics(app: FastAPI, source: Source) -> None:
    registry = metrics.registry(source)

    @app.get(
        "/metrics",
        tags=["metrics"],
        summary="Metrics in Prometheus' or OpenMetrics' text format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "The format follows the Accept header."}},
    )
    async def scrape(request: Request) -> Response:
        """Taken at this moment; nothing is measured for it beforehand."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})
