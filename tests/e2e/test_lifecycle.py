"""Installing, upgrading and removing the operator on nodes, each test with an installation of its own."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from demo.objects import queue_worker
from devcluster.node.layout import CONTEXT, Layout
from devcluster.node.node import start_dns, stop_dns
from tests.support.accounts import check_account
from tests.support.cluster import CHART, CRD, NAME, READY_SECONDS, ROOT, Release, installed
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import platform, platform_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.requires("nodes")

SYSTEM = "queueworker-system"
DELETION_SECONDS = 20


@contextmanager
def kustomized(cluster: Cluster, folder: Path) -> Iterator[None]:
    """What `manifests/namespaced` installs, for the namespace team-a, until the end of the block."""
    repository, _, tag = cluster.image.rpartition(":")
    image = {"name": NAME, "newName": repository, "newTag": tag}
    kustomization = {"resources": [os.path.relpath(ROOT / "manifests" / "namespaced", folder)], "images": [image]}
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


def test_an_uninstall_with_objects_present_stops_and_names_them(cluster: Cluster) -> None:
    with installed(cluster, "replicaCount=1") as release, cluster.namespace("team") as namespace:
        cluster.apply([queue_worker()], namespace)
        wait_until(lambda: has_status(cluster, namespace), "the QueueWorker has a status")
        refused = cluster.helm("uninstall", release.name, "-n", release.namespace, "--timeout=180s", check=False)
        assert refused.returncode != 0
        assert f"{namespace}/legacy" in refused.stdout + refused.stderr
        release.await_ready(1)
        cluster.kubectl("delete", "queueworker", "--all", "-n", namespace, "--timeout=60s")
        release.uninstall()


def test_two_releases_route_each_for_its_own_namespace(cluster: Cluster) -> None:
    """`helm test` routes tasks in the first namespace that the release watches."""
    with (
        cluster.namespace("team-a") as first,
        cluster.namespace("team-b") as second,
        installed(cluster, "replicaCount=1", f"watchNamespaces={{{first}}}") as release,
        cluster.namespace("operator-b") as namespace,
    ):
        other = Release(cluster, namespace, "second")
        other.install("replicaCount=1", f"watchNamespaces={{{second}}}", "crds.install=false")
        with platform_in(cluster, first, executors=1, drain_seconds=1) as team:
            team.await_routing(1)
            team.route("watched")
        for watched, routing in ((first, release), (second, other)):
            assert "Succeeded" in routing.test()
            assert f"{watched}/selftest-" in logs(routing)
        assert f"{second}/" not in logs(release)
        assert f"{first}/" not in logs(other)
        other.uninstall()


def has_status(cluster: Cluster, namespace: str) -> bool:
    return bool(cluster.get("queueworker", "legacy", "-n", namespace).get("status", {}).get("conditions"))


def logs(release: Release) -> str:
    selector = f"app.kubernetes.io/instance={release.name}"
    return release.cluster.kubectl("logs", "-n", release.namespace, "-l", selector, "--tail=-1").stdout


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


def test_a_namespace_that_is_deleted_is_gone_in_seconds(cluster: Cluster) -> None:
    with installed(cluster, "replicaCount=1"), platform(cluster, executors=1, drain_seconds=1) as team:
        team.await_routing(1)
        team.route("routed")
        started = time.monotonic()
        cluster.kubectl("delete", "namespace", team.namespace, f"--timeout={READY_SECONDS}s")
        seconds = time.monotonic() - started
        print(f"the namespace was gone after {seconds:.1f} s")
        assert seconds < DELETION_SECONDS


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

    with installed(cluster, prepare=confine) as release:
        pods = release.pods()
        assert {pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in pods} == {"200m"}
        assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods] == [0, 0]


def test_it_routes_once_names_can_be_looked_up_again(cluster: Cluster) -> None:
    """The queue's and Redis' names cannot be looked up when the operator starts: it waits, and loses nothing."""
    with installed(cluster, "replicaCount=1") as release, platform(cluster, executors=1, drain_seconds=1) as team:
        team.await_routing(1)
        with without_dns(cluster):
            deployment = (f"deployment/{release.name}", "-n", release.namespace)
            cluster.kubectl("rollout", "restart", *deployment)
            cluster.kubectl("rollout", "status", *deployment, f"--timeout={READY_SECONDS}s")
            ids = team.queue.submit("waiting", 5, 0)
            wait_until(lambda: ready_reason(cluster, team.namespace) not in {"", "Routing"}, "the condition says why")
        account = team.queue.settle()
        check_account(account, completed=len(ids), failed=0, reported_twice=0)


def ready_reason(cluster: Cluster, namespace: str) -> str:
    conditions = cluster.get("queueworker", "legacy", "-n", namespace)["status"]["conditions"]
    return next(str(found["reason"]) for found in conditions if found["type"] == "Ready")


@contextmanager
def without_dns(cluster: Cluster) -> Iterator[None]:
    """No name of the cluster can be looked up until the end of the block. On our node CoreDNS is a process."""
    if cluster.context == CONTEXT:
        stop_dns(Layout())
        try:
            yield
        finally:
            start_dns(Layout())
        return
    scale = ("scale", "deployment/coredns", "-n", "kube-system")
    replicas = cluster.get("deployment", "coredns", "-n", "kube-system")["spec"]["replicas"]
    cluster.kubectl(*scale, "--replicas=0")
    try:
        yield
    finally:
        cluster.kubectl(*scale, f"--replicas={replicas}")
