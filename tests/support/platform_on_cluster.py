"""The platform around the operator as pods in one namespace: queue, Redis, storage worker and executors."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.support.cluster import READY_SECONDS, Cluster, Queue, condition
from tests.support.demo_processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "legacy"
EXECUTORS = 3
CONCURRENCY = 2
# A pod that is to go takes no new tasks, and has this long to end those that it runs.
DRAIN_SECONDS = 8
TASK_TIMEOUT_SECONDS = 10
_POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_RECORD = "/tmp/record.jsonl"


class Platform:
    """The platform and its QueueWorker. `queue` is reached by a port on this machine."""

    def __init__(self, cluster: Cluster, namespace: str, queue: Queue) -> None:
        self.cluster, self.namespace, self.queue = cluster, namespace, queue

    def worker(self) -> dict[str, Any]:
        return self.cluster.get("queueworker", NAME, "-n", self.namespace)

    def stored(self) -> dict[str, int]:
        """The storage worker's counts: completed, failed, running, distinct, duplicates."""
        command = ("demo.services.storage_worker", "summary", "--database", "/tmp/evaluations.db")
        words = self._python("deployment/storage", "-m", *command).split()
        return {name: int(value) for name, _, value in (word.partition("=") for word in words)}

    def handed_out(self) -> list[tuple[float, str]]:
        """When, in seconds on a clock of the node, the queue handed out which task."""
        lines = [json.loads(line) for line in self._record("deployment/queue")]
        return [(line["at"], line["eval_id"]) for line in lines if line["what"] == "handed-out"]

    def longest_pause(self, ids: list[str]) -> float:
        """The longest time in seconds between two tasks of `ids` that the queue handed out one after the other."""
        wanted = set(ids)
        times = [at for at, eval_id in self.handed_out() if eval_id in wanted]
        assert len(times) == len(wanted)
        return max(later - earlier for earlier, later in pairwise(times))

    def started(self) -> list[str]:
        """The tasks that the executors which run now have started; one that was started twice is there twice."""
        pods = self.cluster.items("pods", "-n", self.namespace, "-l", "app=executor")
        lines = [json.loads(line) for pod in pods for line in self._record(f"pod/{pod['metadata']['name']}")]
        return [line["eval_id"] for line in lines if line["what"] == "started"]

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

    def await_routing(self, executors: int = EXECUTORS) -> None:
        def routes() -> bool:
            worker = self.worker()
            healthy = worker.get("status", {}).get("executors", {}).get("healthy")
            return condition(worker, "Ready") == "True" and healthy == executors

        wait_until(routes, f"the QueueWorker routes to {executors} executors", READY_SECONDS)

    def _record(self, target: str) -> list[str]:
        program = f"import pathlib; p = pathlib.Path('{_RECORD}'); print(p.read_text() if p.exists() else '')"
        return [line for line in self._python(target, "-c", program).splitlines() if line]

    def _python(self, target: str, *args: str) -> str:
        return self.cluster.kubectl(
            "exec", "-n", self.namespace, target, "--", "/opt/queueworker/bin/python", *args
        ).stdout


@contextmanager
def platform(cluster: Cluster, executors: int = EXECUTORS, drain_seconds: int = DRAIN_SECONDS) -> Iterator[Platform]:
    """The platform in a namespace of its own, with a QueueWorker; it is gone after the block."""
    with cluster.namespace("team") as namespace, platform_in(cluster, namespace, executors, drain_seconds) as made:
        yield made


@contextmanager
def platform_in(cluster: Cluster, namespace: str, executors: int, drain_seconds: int) -> Iterator[Platform]:
    """The platform in that namespace; its QueueWorker is gone after the block."""
    cluster.apply(services(cluster.platform_image, executors, drain_seconds), namespace)
    for workload in ("deployment/queue", "deployment/redis", "deployment/storage", "statefulset/executor"):
        cluster.kubectl("rollout", "status", "-n", namespace, workload, f"--timeout={READY_SECONDS}s")
    cluster.apply([queue_worker()], namespace)
    try:
        with cluster.forward(namespace, "service/queue", 8081) as url, Queue(url) as queue:
            yield Platform(cluster, namespace, queue)
    finally:
        delete_workers(cluster, namespace)


def delete_workers(cluster: Cluster, namespace: str) -> None:
    """Delete the QueueWorkers; without an operator that ends their work, by removing its finalizer."""
    select = ("queueworker", "--all", "-n", namespace, "--ignore-not-found")
    if cluster.kubectl("delete", *select, "--timeout=30s", check=False).returncode == 0:
        return
    names = cluster.kubectl("get", "queueworker", "-n", namespace, "-o", "name", check=False).stdout.split()
    for name in names:
        cluster.kubectl("patch", name, "-n", namespace, "--type=merge", "-p", '{"metadata": {"finalizers": []}}')


def queue_worker() -> dict[str, Any]:
    spec = {
        "queue": {"url": "http://queue:8081"},
        "executors": {"service": {"name": "executor"}, "concurrency": CONCURRENCY},
        "routing": {"strategy": "LeastLoaded"},
        "events": {"redisURL": "redis://redis:6379"},
    }
    return {"apiVersion": "crucible.dev/v1alpha1", "kind": "QueueWorker", "metadata": {"name": NAME}, "spec": spec}


def managed_worker(image: str, count: int, **environment: str) -> dict[str, Any]:
    """A QueueWorker whose executors are pods that the operator runs."""
    template = _template("executor", image, _executor(), None)
    container = template["spec"]["containers"][0]
    container["env"] += [{"name": name, "value": value} for name, value in environment.items()]
    worker = queue_worker()
    worker["spec"] |= {
        "executors": {"count": count, "template": template, "concurrency": CONCURRENCY},
        "routing": {"strategy": "LeastLoaded", "taskTimeoutSeconds": TASK_TIMEOUT_SECONDS},
    }
    return worker


def _executor() -> dict[str, Any]:
    return {"args": ["demo.services.executor", "--host", "0.0.0.0", "--record", _RECORD]}


def services(image: str, executors: int = EXECUTORS, drain_seconds: int = DRAIN_SECONDS) -> list[dict[str, Any]]:
    """The objects of the platform, which comply with the pod security standard `restricted`."""
    queue = {"args": ["demo.services.queue", "--host", "0.0.0.0", "--record", _RECORD]}
    redis = {"command": ["redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"]}
    storage = {
        "args": [
            *("demo.services.storage_worker", "--redis-url", "redis://redis:6379"),
            *("--database", "/tmp/evaluations.db"),
        ]
    }
    executor = _executor() | {"lifecycle": {"preStop": {"sleep": {"seconds": drain_seconds}}}}
    return [
        service("queue", 8081),
        deployment("queue", image, queue, 8081),
        service("redis", 6379),
        deployment("redis", image, redis, 6379),
        deployment("storage", image, storage, None),
        service("executor", 8083, headless=True),
        _executors(image, executor, executors, drain_seconds),
    ]


def _executors(image: str, container: dict[str, Any], count: int, drain_seconds: int) -> dict[str, Any]:
    template = _template("executor", image, container, 8083)
    template["spec"]["terminationGracePeriodSeconds"] = drain_seconds + 10
    spec = {
        "serviceName": "executor",
        "replicas": count,
        "podManagementPolicy": "Parallel",
        "ordinals": {"start": 1},
        "selector": {"matchLabels": {"app": "executor"}},
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "executor"}, "spec": spec}


def deployment(name: str, image: str, container: dict[str, Any], port: int | None) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": name}}, "template": _template(name, image, container, port)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def _template(name: str, image: str, container: dict[str, Any], port: int | None) -> dict[str, Any]:
    whole = container | {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "TMPDIR", "value": "/tmp"}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": _CONTAINER_SECURITY,
    }
    if port is not None:
        whole["ports"] = [{"name": "http", "containerPort": port}]
        whole["readinessProbe"] = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    spec = {
        "securityContext": _POD_SECURITY,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [whole],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def service(name: str, port: int, *, headless: bool = False) -> dict[str, Any]:
    spec: dict[str, Any] = {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
