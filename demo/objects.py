"""The platform around the operator as objects of Kubernetes: queue, Redis, storage worker and executors as pods.

All pods comply with the pod security standard `restricted`.
"""

from __future__ import annotations

from typing import Any

NAME = "legacy"
EXECUTORS = 3
CONCURRENCY = 2
# A pod that is to go takes no new tasks, and has this long to end those that it runs.
DRAIN_SECONDS = 8
# Of the pods that need no time to end. The deletion of a namespace looks at its pods again after half of the longest.
GRACE_SECONDS = 8
TASK_TIMEOUT_SECONDS = 10
RECORD = "/tmp/record.jsonl"
"""Where queue and executors write what they do, see `ActionLog`."""
DATABASE = "/tmp/evaluations.db"
"""Where the storage worker keeps the outcomes."""
_SUBSCRIBED = "/tmp/subscribed"
_POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def queue_worker() -> dict[str, Any]:
    spec = {
        "queue": {"url": "http://queue:8081"},
        "executors": {"service": {"name": "executor"}, "concurrency": CONCURRENCY},
        "routing": {"strategy": "LeastLoaded"},
        "events": {"redisURL": "redis://redis:6379"},
    }
    return {"apiVersion": "crucible.dev/v1alpha1", "kind": "QueueWorker", "metadata": {"name": NAME}, "spec": spec}


def managed_worker(
    image: str, count: int, task_timeout: int = TASK_TIMEOUT_SECONDS, **environment: str
) -> dict[str, Any]:
    """A QueueWorker whose executors are pods that the operator runs."""
    template = _template("executor", image, _executor(), None)
    container = template["spec"]["containers"][0]
    container["env"] += [{"name": name, "value": value} for name, value in environment.items()]
    worker = queue_worker()
    worker["spec"] |= {
        "executors": {"count": count, "template": template, "concurrency": CONCURRENCY},
        "routing": {"strategy": "LeastLoaded", "taskTimeoutSeconds": task_timeout},
    }
    return worker


def _executor() -> dict[str, Any]:
    return {"args": ["demo.services.executor", "--host", "0.0.0.0", "--record", RECORD]}


def platform(image: str) -> list[dict[str, Any]]:
    """Queue, Redis and storage worker."""
    queue = {"args": ["demo.services.queue", "--host", "0.0.0.0", "--record", RECORD]}
    redis = {"command": ["redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"]}
    to_redis = ("--redis-url", "redis://redis:6379", "--database", DATABASE, "--ready-file", _SUBSCRIBED)
    storage = {
        "args": ["demo.services.storage_worker", *to_redis],
        # Redis keeps no event for a subscriber that comes later.
        "readinessProbe": {"exec": {"command": ["test", "-e", _SUBSCRIBED]}, "periodSeconds": 1},
    }
    return [
        service("queue", 8081),
        deployment("queue", image, queue, 8081),
        service("redis", 6379),
        deployment("redis", image, redis, 6379),
        deployment("storage", image, storage, None),
    ]


def services(image: str, executors: int = EXECUTORS, drain_seconds: int = DRAIN_SECONDS) -> list[dict[str, Any]]:
    """The platform, with executors that the operator does not run."""
    wait = {"exec": {"command": ["sleep", str(drain_seconds)]}}  # Kubernetes 1.29 has no `sleep` of its own
    executor = _executor() | {"lifecycle": {"preStop": wait}}
    return [
        *platform(image),
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
    template = _template(name, image, container, port)
    template["spec"]["terminationGracePeriodSeconds"] = GRACE_SECONDS
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
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
