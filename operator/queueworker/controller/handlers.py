"""The kopf handlers. They pass watch events to the runners and decide nothing."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

import kopf

from queueworker.controller.discovery import Slices
from queueworker.controller.runner import ObjectRunner
from queueworker.resource import names
from queueworker.routing.router import Router

if TYPE_CHECKING:
    from queueworker.controller.cluster import Cluster
    from queueworker.controller.options import Registry

# kopf logs each handled event of each object at INFO
logging.getLogger("kopf.objects").setLevel(logging.WARNING)


def settings() -> kopf.OperatorSettings:
    """Settings of kopf, each with its reason."""
    made = kopf.OperatorSettings()
    made.scanning.disabled = True  # no watch on CRDs and namespaces, so fewer permissions
    made.background.cancellation_polling = 0.5  # a deleted object disappears soon after its router has drained
    made.persistence.finalizer = names.FINALIZER
    made.posting.reporting_component = "queueworker-operator"
    made.posting.event_name_prefix = "queueworker-"
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330  # a watch on a silently dead connection is noticed and renewed
    made.networking.request_timeout = 30
    return made


def register(registry: kopf.OperatorRegistry, runners: Registry, cluster: Cluster, identity: str) -> None:
    """Register the handlers of one term of leadership."""
    slices = Slices()
    kind = (names.GROUP, names.VERSION, names.PLURAL)

    @kopf.on.login(registry=registry)
    def login(**options: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**options) or kopf.login_with_kubeconfig(**options)

    @kopf.on.event(*kind, registry=registry)
    def observe(body: kopf.Body, namespace: str | None, name: str, **_: Any) -> None:
        runners.mark_alive()
        runner = runners.runners.get((namespace or "", name))
        if runner is not None:
            runner.observe(_plain(body))

    @kopf.daemon(*kind, registry=registry)
    async def route(body: kopf.Body, namespace: str | None, name: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        announce = functools.partial(_announce, body)
        runner = ObjectRunner(_plain(body), cluster, slices, identity, announce, factory=Router)
        runners.runners[namespace or "", name] = runner
        watcher = _stop_with(stopped, runner)
        try:
            await runner.run()
        finally:
            watcher.cancel()
            if runners.runners.get((namespace or "", name)) is runner:
                del runners.runners[namespace or "", name]

    @kopf.on.event(
        "discovery.k8s.io", "v1", "endpointslices", labels={names.SERVICE_NAME_LABEL: kopf.PRESENT}, registry=registry
    )
    def discovered(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf passes it by this name
        runners.mark_alive()
        namespace = slices.update(type, dict(body))
        for (where, _name), runner in runners.runners.items():
            if where == namespace:
                runner.endpoints_changed()


def _stop_with(stopped: kopf.DaemonStopped, runner: ObjectRunner) -> asyncio.Task[None]:
    """Stop the runner when kopf stops its daemon, because the object was deleted or the operator ends."""

    async def watch() -> None:
        await stopped.wait()
        deleted = bool(stopped.reason and kopf.DaemonStoppingReason.RESOURCE_DELETED in stopped.reason)
        await runner.stop(final=deleted)

    return asyncio.create_task(watch(), name=f"stop of {runner.namespace}/{runner.name}")


def _announce(body: kopf.Body, kind: str, reason: str, message: str) -> None:
    kopf.event(body, type=kind, reason=reason, message=message[:1000])


def _plain(body: kopf.Body) -> dict[str, Any]:
    """A copy of the parts that a runner reads: kopf's body is a view that changes."""
    return {key: body[key] for key in ("metadata", "spec", "status") if key in body}
