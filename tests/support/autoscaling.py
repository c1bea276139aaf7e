"""A HorizontalPodAutoscaler that follows the queue, and the metrics API that it asks, as a pod."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.objects import deployment, service
from tests.support import metrics_server
from tests.support.certificates import make_certificate
from tests.support.cluster import READY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster

NAME = "queue-metrics"
TASKS_PER_POD = 4


def autoscaler(name: str, least: int, most: int) -> dict[str, Any]:
    """Of the QueueWorker: a pod for every `TASKS_PER_POD` tasks that wait or run, within these numbers of pods."""
    target = {"type": "AverageValue", "averageValue": str(TASKS_PER_POD)}
    spec = {
        "scaleTargetRef": {"apiVersion": "crucible.dev/v1alpha1", "kind": "QueueWorker", "name": name},
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": [
            {"type": "External", "external": {"metric": {"name": metrics_server.METRIC}, "target": target}},
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


@contextmanager
def queue_metrics(cluster: Cluster, namespace: str) -> Iterator[None]:
    """The cluster's API of external metrics, with the length of the namespace's queue, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = "".join(path.read_text() for path in make_certificate(Path(folder), f"DNS:{NAME}"))
    program = Path(metrics_server.__file__).read_text()
    command = ["/opt/queueworker/bin/python", "-c", program, certificate, "http://queue:8081"]
    served = deployment(NAME, cluster.platform_image, {"command": command}, metrics_server.PORT)
    cluster.apply([service(NAME, metrics_server.PORT), served], namespace)
    cluster.kubectl("rollout", "status", f"deployment/{NAME}", "-n", namespace, f"--timeout={READY_SECONDS}s")
    api = _api_service(namespace)
    try:
        cluster.apply([api], namespace)
        available = ("--for=condition=Available", f"--timeout={READY_SECONDS}s")
        cluster.kubectl("wait", f"apiservice/{api['metadata']['name']}", *available)
        yield
    finally:  # it goes first: while a registered API does not answer, no namespace can be deleted
        cluster.kubectl("delete", "apiservice", api["metadata"]["name"], "--ignore-not-found")
        cluster.kubectl("delete", f"service/{NAME}", f"deployment/{NAME}", "-n", namespace)


def _api_service(namespace: str) -> dict[str, Any]:
    group, _, version = metrics_server.API.partition("/")
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": NAME, "namespace": namespace, "port": metrics_server.PORT},
    }
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    return kind | {"metadata": {"name": f"{version}.{group}"}, "spec": spec}
