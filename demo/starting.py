"""Starts everything that the demo needs; an ExitStack ends it in reverse order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.kube import NAME, NAMESPACE, Kubectl, kubeconfig_of
from demo.local import LocalPlatform, Parts
from demo.processes import EventRedis, Line, Service
from demo.routers import Operators, Routers, Worker
from devcluster import binaries
from devcluster.server import OPERATOR_ACCOUNT, ControlPlane

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from rich.console import Console

LEGACY_EXECUTORS = 3


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line. `rate` is in tasks a second."""

    context: str = ""
    worker: bool = False
    pods: bool = False
    legacy: bool = False
    executors: int = 3
    rate: float = 20


def start(stack: ExitStack, folder: Path, options: Options, console: Console) -> LocalPlatform:
    """Raises DemoError, BinaryError, ControlPlaneError or RuntimeError, with what to do."""
    cluster = None if options.worker else _cluster(stack, folder, options.context, console)
    console.print("starting Redis, queue, executors, storage worker")
    redis, database = EventRedis(), folder / "evaluations.db"
    stack.enter_context(redis)
    storage = ("--redis-url", redis.subscriber_url, "--database", str(database))
    stack.enter_context(Service(folder, "storage", "demo.services.storage_worker", *storage))
    line = stack.enter_context(Line(folder, "ours"))
    line.start(options.executors)
    redis.open()
    if cluster is None:
        console.print("starting the worker")
        routers: Routers = Worker(stack, folder, line, redis.url, options.executors)
    else:
        kubectl, kubeconfig = cluster
        console.print("installing CRD and role, and starting two replicas of the operator")
        operators = Operators(stack, folder, kubectl, kubeconfig)
        operators.route(stack, line, redis.url, options.executors)
        routers = operators
        console.print(_commands(kubectl, operators))
    console.print(f"the page: {routers.urls[0]}/")
    legacy = _legacy(stack, folder, redis.url) if options.legacy else None
    parts = Parts(redis, database, line, routers, legacy)
    for each in parts.lines:
        each.start_load(options.rate)
    return LocalPlatform(parts)


def _cluster(stack: ExitStack, folder: Path, context: str, console: Console) -> tuple[Kubectl, str]:
    """The administrator's kubectl, and a kubeconfig of the operator if there is one already."""
    if context:
        return Kubectl(kubeconfig_of(context, folder)), ""
    binaries.assets()
    console.print("starting etcd and kube-apiserver")
    plane = stack.enter_context(ControlPlane())
    return Kubectl(plane.admin_kubeconfig), plane.kubeconfig_for(*OPERATOR_ACCOUNT)


def _legacy(stack: ExitStack, folder: Path, redis_url: str) -> tuple[Line, Service]:
    line = stack.enter_context(Line(folder, "legacy"))
    line.start(LEGACY_EXECUTORS)
    env = {
        "QUEUE_SERVICE_URL": line.queue_url,
        "REDIS_URL": redis_url,
        "EXECUTOR_ENDPOINTS": ",".join(line.executor_url(number) for number in range(1, LEGACY_EXECUTORS + 1)),
    }
    worker = Service(folder, "legacy-worker", "demo.services.legacy_worker", env=env)
    return line, stack.enter_context(worker)


def _commands(kubectl: Kubectl, operators: Operators) -> str:
    return f"""
In another terminal:
  export KUBECONFIG={kubectl.kubeconfig}
  kubectl get qw -n {NAMESPACE} -w
  kubectl describe qw {NAME} -n {NAMESPACE}
  kubectl scale qw/{NAME} -n {NAMESPACE} --replicas=5
  kubectl edit qw {NAME} -n {NAMESPACE}
  curl {operators.urls[0]}/status
"""
