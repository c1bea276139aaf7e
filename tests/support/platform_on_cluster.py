"""The platform around the operator as pods in one namespace: queue, Redis, storage worker and executors."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from demo.objects import DATABASE, DRAIN_SECONDS, EXECUTORS, NAME, RECORD, queue_worker, services
from tests.support.cluster import READY_SECONDS, Cluster, Queue, condition
from tests.support.demo_processes import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PYTHON = "/opt/queueworker/bin/python"
"""In the platform's image."""
ANSWER_SECONDS = 5


class Platform:
    """The platform and its QueueWorker. `queue` is reached by a port on this machine."""

    def __init__(self, cluster: Cluster, namespace: str, queue: Queue) -> None:
        self.cluster, self.namespace, self.queue = cluster, namespace, queue

    def worker(self) -> dict[str, Any]:
        return self.cluster.get("queueworker", NAME, "-n", self.namespace)

    def stored(self) -> dict[str, int]:
        """The storage worker's counts: completed, failed, running, distinct, duplicates."""
        command = ("demo.services.storage_worker", "summary", "--database", DATABASE)
        words = self._python("deployment/storage", "-m", *command).split()
        return {name: int(value) for name, _, value in (word.partition("=") for word in words)}

    def handed_out(self, ids: list[str]) -> list[float]:
        """When the queue handed out these tasks, in seconds on the monotonic clock of its node, from the first on."""
        wanted = set(ids)
        lines = self._record("deployment/queue")
        times = [line["at"] for line in lines if line["what"] == "handed-out" and line["eval_id"] in wanted]
        assert len(times) == len(wanted)
        return times

    def longest_pause(self, ids: list[str]) -> float:
        """The longest time in seconds between two tasks of `ids` that the queue handed out one after the other."""
        return max(later - earlier for earlier, later in pairwise(self.handed_out(ids)))

    def failed(self) -> set[str]:
        """The tasks that were reported to the queue as failed."""
        return {line["eval_id"] for line in self._record("deployment/queue") if line["what"] == "failed"}

    def started(self, *executors: str) -> list[str]:
        """The tasks that these executors have started, by default all that run now; one that was started twice is
        there twice.
        """
        names = executors or [pod["metadata"]["name"] for pod in self._executors()]
        lines = [line for name in names for line in self._record(f"pod/{name}")]
        return [line["eval_id"] for line in lines if line["what"] == "started"]

    def await_started(self, ids: list[str]) -> None:
        wait_until(lambda: set(ids) <= set(self.started()), "executors run the tasks", READY_SECONDS)

    def pod(self, name: str) -> dict[str, Any]:
        return self.cluster.get("pod", name, "-n", self.namespace)

    def route(self, prefix: str, count: int = 5) -> None:
        """Submit tasks and wait until all of them are completed."""
        before = self.queue.account()["completed"]
        self.queue.submit(prefix, count, 0)
        self.queue.await_account("completed", lambda completed: completed >= before + count)

    def evict(self, pod: str) -> str:
        """Ask the eviction API, as `kubectl drain` does. Returns why it refuses; empty if it does not."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        done = self.cluster.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(eviction), check=False)
        return done.stderr.strip() if done.returncode else ""

    def gets(self, url: str) -> bool:
        """Whether a pod of the platform gets a good answer from the URL, at once."""
        program = f"import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout={ANSWER_SECONDS})"
        return (
            _run_python(self.cluster, self.namespace, "deployment/queue", "-c", program, url, check=False).returncode
            == 0
        )

    def await_routing(self, executors: int = EXECUTORS) -> None:
        await_routing(self.cluster, self.namespace, NAME, executors)

    def _executors(self) -> list[dict[str, Any]]:
        return self.cluster.items("pods", "-n", self.namespace, "-l", "app=executor")

    def _record(self, target: str) -> list[dict[str, Any]]:
        """What that pod's `ActionLog` has."""
        program = f"import pathlib; p = pathlib.Path('{RECORD}'); print(p.read_text() if p.exists() else '')"
        return [json.loads(line) for line in self._python(target, "-c", program).splitlines() if line]

    def _python(self, target: str, *args: str) -> str:
        return _run_python(self.cluster, self.namespace, target, *args).stdout


def await_routing(cluster: Cluster, namespace: str, name: str, executors: int) -> None:
    """Wait until the QueueWorker is Ready and has so many healthy executors."""

    def routes() -> bool:
        worker = cluster.get("queueworker", name, "-n", namespace)
        healthy = worker.get("status", {}).get("executors", {}).get("healthy")
        return condition(worker, "Ready") == "True" and healthy == executors

    wait_until(routes, f"the QueueWorker {name} routes to {executors} executors", READY_SECONDS)


@contextmanager
def platform(
    cluster: Cluster, executors: int = EXECUTORS, drain_seconds: int = DRAIN_SECONDS, family: str = ""
) -> Iterator[Platform]:
    """The platform in a namespace of its own, with a QueueWorker; it is gone after the block."""
    with (
        cluster.namespace("team") as namespace,
        platform_in(cluster, namespace, executors, drain_seconds, family) as made,
    ):
        yield made


@contextmanager
def platform_in(
    cluster: Cluster, namespace: str, executors: int, drain_seconds: int, family: str = ""
) -> Iterator[Platform]:
    """The platform in that namespace; its QueueWorker is gone after the block.

    With a `family`, such as IPv6, the Services have addresses of that one only.
    """
    objects = services(cluster.platform_image, executors, drain_seconds)
    cluster.apply(_of_family(objects, family) if family else objects, namespace)
    for workload in ("deployment/queue", "deployment/redis", "deployment/storage", "statefulset/executor"):
        cluster.kubectl("rollout", "status", "-n", namespace, workload, f"--timeout={READY_SECONDS}s")
    cluster.apply([queue_worker()], namespace)
    try:
        with cluster.forward(namespace, "service/queue", 8081) as url, Queue(url) as queue:
            yield Platform(cluster, namespace, queue)
    finally:
        delete_workers(cluster, namespace)


def _run_python(
    cluster: Cluster, namespace: str, target: str, *args: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """The interpreter of the platform's image, in a pod of it."""
    return cluster.kubectl("exec", "-n", namespace, target, "--", PYTHON, *args, check=check)


def _of_family(objects: list[dict[str, Any]], family: str) -> list[dict[str, Any]]:
    """The same, with Services of one family, and programs that listen on all addresses of both."""
    made: list[dict[str, Any]] = json.loads(json.dumps(objects).replace('"0.0.0.0"', '"::"'))
    for item in made:
        if item["kind"] == "Service":
            item["spec"] |= {"ipFamilies": [family], "ipFamilyPolicy": "SingleStack"}
    return made


def delete_workers(cluster: Cluster, namespace: str) -> None:
    """Delete the QueueWorkers; without an operator that ends their work, by removing its finalizer."""
    select = ("queueworker", "--all", "-n", namespace, "--ignore-not-found")
    if cluster.kubectl("delete", *select, "--timeout=30s", check=False).returncode == 0:
        return
    names = cluster.kubectl("get", "queueworker", "-n", namespace, "-o", "name", check=False).stdout.split()
    for name in names:
        cluster.kubectl("patch", name, "-n", namespace, "--type=merge", "-p", '{"metadata": {"finalizers": []}}')
