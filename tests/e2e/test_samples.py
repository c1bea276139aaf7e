"""The samples with pods, as manifests/samples has them, beside the demo's queue: tasks flow through their pods."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from demo.objects import platform
from tests.support.accounts import check_account
from tests.support.cluster import READY_SECONDS, ROOT, Queue, condition, installed
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import delete_workers
from tools.platform_image import platform_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.requires("nodes")

SLEEP_HOOK = 30
"""The minor version of Kubernetes that takes `preStop.sleep`."""
SAMPLES = ("managed", "own-statefulset")
EXECUTORS = 3


@contextmanager
def applied(cluster: Cluster, name: str) -> Iterator[str]:
    """Queue, Redis and the sample in a namespace of their own, which the block gets."""
    text = (ROOT / "manifests" / "samples" / f"{name}.yaml").read_text()
    objects = list(yaml.safe_load_all(text.replace(platform_tag(), cluster.platform_image)))
    peers = [item for item in platform(cluster.platform_image) if item["metadata"]["name"] != "storage"]
    with cluster.namespace(name) as namespace:
        cluster.apply([*peers, *objects], namespace)
        try:
            yield namespace
        finally:
            delete_workers(cluster, namespace)


def await_routing(cluster: Cluster, name: str, namespace: str) -> None:
    def routes() -> bool:
        worker = cluster.get("queueworker", name, "-n", namespace)
        healthy = worker.get("status", {}).get("executors", {}).get("healthy")
        return condition(worker, "Ready") == "True" and healthy == EXECUTORS

    wait_until(routes, f"the sample {name} routes to {EXECUTORS} executors", READY_SECONDS)


def test_tasks_flow_through_the_pods_of_each_sample(cluster: Cluster) -> None:
    if cluster.minor_version() < SLEEP_HOOK:
        pytest.skip("the preStop hook of the samples needs Kubernetes 1.30: docs/managed-pool.md")
    with (
        installed(cluster, "replicaCount=1", "managedPools.enabled=true"),
        applied(cluster, SAMPLES[0]) as first,
        applied(cluster, SAMPLES[1]) as second,
    ):
        for name, namespace in zip(SAMPLES, (first, second), strict=True):
            await_routing(cluster, name, namespace)
            with cluster.forward(namespace, "service/queue", 8081) as url, Queue(url) as queue:
                queue.submit(name, 10, 0)
                check_account(queue.settle(), submitted=10, completed=10, failed=0)
