"""Starts the demo as pods, on this machine as a node or on a cluster that is there; an ExitStack ends it."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from demo import kube
from demo.kube import NAME, NAMESPACE, Kubectl
from demo.objects import managed_worker, platform
from demo.pods import ANSWER_SECONDS, FOLLOW, OPERATOR, PREFIX, PYTHON, QUEUE_PATH, SYSTEM, PodPlatform
from demo.processes import DemoError, Service, load_arguments
from devcluster.interrupts import uninterrupted
from devcluster.spawning import end, spawn
from tools.clusters import NoCluster, Nodes, own_node
from tools.image import ROOT, default_tag
from tools.platform_image import platform_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from rich.console import Console

    from demo.starting import Options

    MakeNode = Callable[[], AbstractContextManager[Nodes]]

CHART = ROOT / "charts" / "queueworker-operator"
READY_SECONDS = 180
START_SECONDS = 30.0
CRD = "queueworkers.crucible.dev"


def start_on_pods(
    stack: ExitStack, folder: Path, options: Options, console: Console, make_node: MakeNode = own_node
) -> PodPlatform:
    """Raises DemoError, and what `tools.clusters.own_node` raises."""
    nodes = _cluster_of(options.context, folder) if options.context else _own_node(stack, make_node)
    kubectl = Kubectl(nodes.kubeconfig)
    console.print("installing the operator by its chart, with two replicas")
    if options.context:
        stack.callback(_uninstall, kubectl, console)
    _install(kubectl, nodes.image)
    console.print("starting queue, Redis and storage worker as pods")
    _start_platform(kubectl, nodes.platform_image)
    console.print(f"creating a QueueWorker whose pool is {options.executors} pods")
    kubectl("apply", "-n", NAMESPACE, "-f", "-", text=kube.as_list([_worker(nodes, options)]))
    kubectl("wait", f"queueworker/{NAME}", "-n", NAMESPACE, "--for=condition=PoolReady", f"--timeout={READY_SECONDS}s")
    console.print(_commands(kubectl))
    proxy_log = stack.enter_context(_running(kubectl.command("proxy", "--port=0"), folder / "proxy.log"))
    api = _await(lambda: _url_in(proxy_log), "kubectl proxy does not answer")
    follow = kubectl.command("exec", "-n", NAMESPACE, "deployment/storage", "--", PYTHON, "-c", FOLLOW)
    counts = stack.enter_context(_running(follow, folder / "counts.jsonl"))
    load = stack.enter_context(
        Service(folder, "load", "demo.services.load", *load_arguments(f"{api}{QUEUE_PATH}", options.rate, PREFIX))
    )
    client = stack.enter_context(httpx.Client(base_url=api, timeout=ANSWER_SECONDS, trust_env=False))
    return PodPlatform(kubectl, client, load, counts)


def _cluster_of(context: str, folder: Path) -> Nodes:
    nodes = Nodes(kube.kubeconfig_of(context, folder), context, default_tag(), platform_tag())
    if Kubectl(nodes.kubeconfig)("get", "crd", CRD, "--ignore-not-found", "-o", "name"):
        raise DemoError(
            f"the cluster {context} has {CRD} already, and the demo would delete it at its end: use another cluster"
        )
    return nodes


def _own_node(stack: ExitStack, make_node: MakeNode) -> Nodes:
    try:
        return stack.enter_context(make_node())
    except NoCluster as error:
        raise DemoError(
            f"this machine cannot be the node of the demo: {error}\n"
            "  on a cluster of your own: make demo DEMO_NODE=1 DEMO_CONTEXT=its-context (docs/development.md)\n"
            "  without a node: make demo"
        ) from error


def _install(kubectl: Kubectl, image: str) -> None:
    repository, _, tag = image.rpartition(":")
    values = (f"image.repository={repository}", f"image.tag={tag}", "managedPools.enabled=true")
    options = [part for value in values for part in ("--set", value)]
    waiting = ("--create-namespace", "--wait", "--timeout", f"{READY_SECONDS}s")
    kubectl.helm("install", OPERATOR, str(CHART), "-n", SYSTEM, *waiting, *options)


def _start_platform(kubectl: Kubectl, image: str) -> None:
    """Return when all are ready, so the storage worker has subscribed: it misses what is published before."""
    kubectl("create", "namespace", NAMESPACE)
    kubectl("apply", "-n", NAMESPACE, "-f", "-", text=kube.as_list(platform(image)))
    for name in ("queue", "redis", "storage"):
        kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/{name}", f"--timeout={READY_SECONDS}s")


def _worker(nodes: Nodes, options: Options) -> dict[str, object]:
    return managed_worker(nodes.platform_image, options.executors)


def _uninstall(kubectl: Kubectl, console: Console) -> None:
    """Leave a cluster as it was. On a node of our own nothing of this is needed."""
    console.print("removing the demo from the cluster")
    steps: tuple[Callable[[], object], ...] = (
        lambda: kube.delete_worker(kubectl),
        lambda: kubectl.helm("uninstall", OPERATOR, "-n", SYSTEM, "--ignore-not-found", "--no-hooks", "--wait"),
        lambda: kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s"),
        lambda: kubectl("delete", "namespace", NAMESPACE, SYSTEM, "--ignore-not-found", "--wait=false"),
    )
    with uninterrupted():
        for step in steps:
            try:
                step()
            except DemoError as error:
                console.print(f"not removed: {error}", markup=False)


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[Path]:
    """A command in the background, with its output in `log`."""
    with log.open("wb") as output:
        process = spawn(command, output)
    try:
        yield log
    finally:
        end(process)


def _url_in(log: Path) -> str:
    found = re.search(r"127\.0\.0\.1:\d+", log.read_text())
    return f"http://{found[0]}" if found else ""


def _await(value: Callable[[], str], complaint: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not (found := value()):
        if time.monotonic() > deadline:
            raise DemoError(f"{complaint} within {START_SECONDS:.0f} s")
        time.sleep(0.2)
    return found


def _commands(kubectl: Kubectl) -> str:
    return f"""
In another terminal:
  export KUBECONFIG={kubectl.kubeconfig}
  kubectl get pods -n {NAMESPACE} -w
  kubectl get qw -n {NAMESPACE} -w
  kubectl scale qw/{NAME} -n {NAMESPACE} --replicas=5
  kubectl port-forward -n {SYSTEM} service/{OPERATOR} 8084   # the page: http://127.0.0.1:8084/
"""
