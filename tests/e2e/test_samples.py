"""The samples with pods, as manifests/samples has them, beside the demo's queue: tasks flow through their pods."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from demo.objects import platform
from tests.support.accounts import check_account
from tests.support.cluster import ROOT, Queue, installed
from tests.support.platform_on_cluster import await_routing, delete_workers
from tools.platform_image import platform_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster

pytestmark = [pytest.mark.requires("nodes"), pytest.mark.usefixtures("sleep_hook")]

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


def test_tasks_flow_through_the_pods_of_each_sample(cluster: Cluster) -> None:
    with (
        installed(cluster, "replicaCount=1", "managedPools.enabled=true"),
        applied(cluster, SAMPLES[0]) as first,
        applied(cluster, SAMPLES[1]) as second,
    ):
        for name, namespace in zip(SAMPLES, (first, second), strict=True):
            await_routing(cluster, namespace, name, EXECUTORS)
            with cluster.forward(namespace, "service/queue", 8081) as url, Queue(url) as queue:
                queue.submit(name, 10, 0)
                check_account(queue.settle(), submitted=10, completed=10, failed=0)
