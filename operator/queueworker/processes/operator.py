"""The operator process: the controller and its HTTP API."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from queueworker.controller.app import run_operator
from queueworker.controller.registry import Registry
from queueworker.processes.memory import memory_budget
from queueworker.processes.signals import StopSignals
from queueworker.processes.tracing_settings import tracing
from queueworker.resource.urls import host_in_url
from queueworker.routing.router import Router
from queueworker.web.app import Mode, create_app
from queueworker.web.loop_lag import LoopLag
from queueworker.web.server import serve

if TYPE_CHECKING:
    from queueworker.controller.options import OperatorOptions
    from queueworker.processes.tracing_settings import TracingSettings
    from queueworker.web.options import WebOptions

log = logging.getLogger(__name__)


async def operate(
    options: OperatorOptions,
    host: str,
    port: int,
    web: WebOptions,
    pod_ip: str = "",
    traced: TracingSettings | None = None,
) -> None:
    """Lead or stand by until SIGTERM, SIGINT or SIGHUP, then drain. Raises CannotListen.

    The HTTP API starts first and ends last: it shows the draining routers, and kopf cancels at its end every task that
    was created after it.
    """
    registry = Registry(options.identity)

    def on_stop(name: str) -> None:
        log.info("received %s: draining", name)
        registry.stopping = True

    with StopSignals(on_stop) as signals, LoopLag() as lag:
        async with tracing(traced, "queueworker-operator", options.identity) as tracer:
            app = create_app(registry, Mode.OPERATOR, web, lag, tracer.counts if tracer else None)
            async with serve(app, host, port) as bound:
                reached = replace(options, address=reached_at(host, bound, pod_ip))
                routers = partial(Router, budget=memory_budget(options.memory_budget_mebibytes), tracer=tracer)
                await run_operator(reached, registry, signals.stopped, signals.claim, routers)
        log.info("stopped")


def reached_at(host: str, port: int, pod_ip: str) -> str:
    """The base URL for other replicas: at the pod's address, or at the one that we listen on; empty if unknown."""
    address = pod_ip or ("" if host in {"0.0.0.0", "::"} else host)
    if not address:
        return ""
    return f"http://{host_in_url(address)}:{port}"
