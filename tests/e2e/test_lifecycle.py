"""Installing, upgrading and removing the operator on nodes, each test with installations of its own."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo.objects import queue_worker
from tests.support.accounts import check_account
from tests.support.cluster import CHART, CRD, NAME, READY_SECONDS, ROOT, Release, installed
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import platform, platform_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.requires("nodes")

SYSTEM = "queueworker-system"
GRACE_SECONDS = 10


@contextmanager
def kustomized(cluster: Cluster, folder: Path) -> Iterator[None]:
    """What `manifests/namespaced` installs, for the namespace team-a, until the end of the block."""
    repository, _, tag = cluster.image.rpartition(":")
    image = {"name": NAME, "newName": repository, "newTag": tag}
    # With a grace of 60 s, Kubernetes would look at the pods of the namespace that it deletes again after 31 s.
    grace = {"op": "replace", "path": "/spec/template/spec/terminationGracePeriodSeconds", "value": GRACE_SECONDS}
    kustomization = {
        "resources": [os.path.relpath(ROOT / "manifests" / "namespaced", folder)],
        "images": [image],
        "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps([grace])}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    cluster.kubectl("apply", "--server-side", "-k", str(folder))
    try:
        cluster.kubectl("rollout", "status", f"deployment/{NAME}", "-n", SYSTEM, f"--timeout={READY_SECONDS}s")
        yield
    finally:
        cluster.kubectl("delete", "-k", str(folder), "--ignore-not-found", "--timeout=180s")


def test_kustomize_installs_it_for_one_namespace_and_removes_it(cluster: Cluster, tmp_path: Path) -> None:
    """`manifests/default`, for the whole cluster, is installed by test_install_page.py."""
    with cluster.namespace("team-a", unique=False) as namespace:
        with kustomized(cluster, tmp_path), platform_in(cluster, namespace, executors=1, drain_seconds=1) as team:
            team.await_routing(1)
            team.route("kustomized")
        assert cluster.kubectl("get", "crd", CRD, check=False).returncode != 0
        cluster.kubectl("delete", "namespace", namespace, f"--timeout={READY_SECONDS}s")


def test_two_releases_route_each_for_its_own_namespace(cluster: Cluster) -> None:
    """Tasks of a platform go through the first one, and those of `helm test` through the second one."""
    with (
        cluster.namespace("team-a") as first,
        cluster.namespace("team-b") as second,
        installed(cluster, "replicaCount=1", f"watchNamespaces={{{first}}}") as release,
        cluster.namespace("operator-b") as namespace,
    ):
        other = Release(cluster, namespace, "second")
        other.install("replicaCount=1", f"watchNamespaces={{{second}}}", "crds.install=false")
        with platform_in(cluster, first, executors=1, drain_seconds=1) as team:
            cluster.apply([with_peers_of(first, queue_worker())], second)
            team.await_routing(1)
            team.route("watched")
            wait_until(lambda: routes_for(other) == {f"{second}/legacy"}, "the second release routes for one object")
            assert routes_for(release) == {f"{first}/legacy"}
            cluster.kubectl("delete", "queueworker", "--all", "-n", second, "--timeout=60s")
        assert "Succeeded" in other.test()
        other.uninstall()


def with_peers_of(namespace: str, worker: dict[str, Any]) -> dict[str, Any]:
    """The QueueWorker with the queue and the Redis of a platform in another namespace; it finds no executors."""
    worker["spec"]["queue"]["url"] = f"http://queue.{namespace}:8081"
    worker["spec"]["events"]["redisURL"] = f"redis://redis.{namespace}:6379"
    return worker


def routes_for(release: Release) -> set[str]:
    """`namespace/name` of the objects that the only pod of a release routes for."""
    (pod,) = (pod["metadata"]["name"] for pod in release.pods())
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}:8084/proxy/status"
    status = json.loads(release.cluster.kubectl("get", "--raw", path).stdout)
    return {worker["name"] for worker in status["queue_workers"]}


def test_an_upgrade_with_a_changed_crd_and_its_rollback_lose_no_task(cluster: Cluster, tmp_path: Path) -> None:
    with installed(cluster) as release, platform(cluster, drain_seconds=1) as team:
        team.await_routing()
        before = columns(cluster)
        release.chart = chart_with_another_column(tmp_path / "chart")
        ids = team.queue.submit("upgraded", 40, 0.3)
        release.install("podAnnotations.revision=second", command="upgrade")
        assert columns(cluster) == [*before, "Another"]
        ids += team.queue.submit("rolled-back", 40, 0.3)
        release.rollback()
        assert columns(cluster) == before
        account = team.queue.settle()
        check_account(account, completed=len(ids), failed=0, reported_twice=0)
        assert sorted(team.started()) == sorted(ids)


def columns(cluster: Cluster) -> list[str]:
    version = cluster.get("crd", CRD)["spec"]["versions"][0]
    return [column["name"] for column in version["additionalPrinterColumns"]]


def chart_with_another_column(folder: Path) -> Path:
    """A copy of the chart as a later version might be."""
    shutil.copytree(CHART, folder)
    file = folder / "files" / "crd.yaml"
    crd = yaml.safe_load(file.read_text())
    another = {"name": "Another", "type": "integer", "jsonPath": ".spec.executors.count"}
    crd["spec"]["versions"][0]["additionalPrinterColumns"].append(another)
    file.write_text(yaml.safe_dump(crd, sort_keys=False))
    return folder


def test_it_starts_with_little_cpu_where_every_pod_needs_limits(cluster: Cluster) -> None:
    """A ResourceQuota refuses pods without limits, and a LimitRange sets those that the chart leaves open."""

    def confine(namespace: str) -> None:
        quota = {"hard": {"limits.cpu": "500m", "limits.memory": "3Gi", "requests.cpu": "400m", "pods": "4"}}
        limits = {"limits": [{"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "50m"}}]}
        cluster.apply(
            [
                {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": quota},
                {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": limits},
            ],
            namespace,
        )

    with installed(cluster, probes=(), prepare=confine) as release:
        pods = release.pods()
        assert {pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in pods} == {"200m"}
        assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods] == [0, 0]
