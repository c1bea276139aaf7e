"""What a worker says of itself when a person starts it on a terminal: what it will do, and what is not the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueworker import __version__
from queueworker.processes.environment_table import VARIABLES, WorkerModel
from queueworker.redaction import without_credentials
from queueworker.resource.redis_url import shown
from queueworker.resource.urls import host_in_url
from queueworker.routing.config import Intent, static_endpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.processes.environment import WorkerSettings

HIDDEN = "(not shown)"
MAX_VALUE = 60


def banner(settings: WorkerSettings, environ: Mapping[str, str]) -> list[str]:
    """Lines without colours. Secrets and passwords in URLs are not in them."""
    process, config = settings.process, settings.config
    spec = config.spec
    executors = [without_credentials(endpoint.url) for endpoint in static_endpoints(spec) or ()]
    listed = executors if len(executors) <= 3 else [executors[0], "...", executors[-1]]
    lines = [f"QueueWorker {__version__}, {process.worker_id}: routes for one queue without Kubernetes"]
    rows = {
        "queue": without_credentials(spec.queue.url),
        "executors": f"{len(executors)}: {', '.join(listed)}" if executors else "none",
        "strategy": str(spec.routing.strategy),
        "journal": f"{shown(config.redis_url)}, group {without_credentials(config.group)}",
        "page": f"http://{_reachable(process.host)}:{process.port or '(a free port, see below)'}/",
    }
    if config.intent is not Intent.ROUTE:
        rows["stands by"] = "all traffic goes to Celery; no tasks are pulled"
    changed = changes(settings, environ)
    first, *others = [f"{name}={value}" for name, value in changed.items()] or ["nothing"]
    rows["not default"] = first
    return [*lines, *(f"  {name:<12}{value}" for name, value in rows.items()), *(" " * 14 + text for text in others)]


def changes(settings: WorkerSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables whose values differ from their defaults, as they may be shown."""
    ours, defaults = {"process": settings.process, "spec": settings.config.spec}, WorkerModel()
    found = {}
    for variable in VARIABLES:
        given = environ.get(variable.name, "").strip()
        model, _, path = variable.path.partition(".")
        if given and _at(ours[model], path) != _at(getattr(defaults, model), path):
            text = without_credentials(given)
            found[variable.name] = HIDDEN if variable.secret or "@" in given else text[:MAX_VALUE]
    return found


def _reachable(host: str) -> str:
    """What a browser on this machine can open."""
    if host in {"::", "0.0.0.0"}:
        return "localhost"
    return host_in_url(host)


def _at(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model
