"""An operator installed by the chart routes on nodes, whatever happens to pods.

The tests share an installation and a platform, and the last one removes the operator.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from demo.objects import CONCURRENCY, EXECUTORS, NAME
from devcluster import binaries
from devcluster.node.layout import CONTEXT, Layout
from devcluster.node.node import start_dns, stop_dns
from queueworker.resource.urls import host_in_url
from tests.support.accounts import check_account
from tests.support.cluster import READY_SECONDS, RESTRICTED, is_ready, kill_container, restarts
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.cluster import Cluster, Release
    from tests.support.platform_on_cluster import Platform

pytestmark = pytest.mark.requires("nodes")

STOP_SECONDS = 20.0
LONG_SECONDS = 8.0
MAX_PAUSE_SECONDS = 3.0
DELETION_SECONDS = 20
LEASE_SECONDS = 11.0  # a standby takes a Lease that was not renewed for 8 s, and reads it every 1.5 s


def test_the_chart_installs_under_restricted_pod_security_with_two_ready_pods(
    cluster: Cluster, release: Release
) -> None:
    labels = cluster.get("namespace", release.namespace)["metadata"]["labels"]
    assert RESTRICTED.items() <= labels.items()
    assert [is_ready(pod) for pod in release.pods()] == [True, True]
    assert release.await_leader()


def test_helm_test_routes_tasks_of_its_own(release: Release) -> None:
    assert "Succeeded" in release.test()


def test_every_task_is_reported_and_stored_once(team: Platform) -> None:
    before = team.queue.account()
    ids = team.queue.submit("traffic", 100, 0.05)
    account = team.queue.settle()
    counts = {name: account[name] - before[name] for name in account}
    assert (counts["submitted"], counts["handed_out"], counts["completed"]) == (100, 100, 100)
    check_account(counts, failed=0, reported_twice=0, unknown_reports=0)
    assert sorted(name for name in team.started() if name in set(ids)) == sorted(ids)
    stored = team.stored()
    assert (stored["distinct"], stored["failed"]) == (account["completed"], 0)


def test_kubectl_queueworker_web_shows_the_page_until_ctrl_c(team: Platform, release: Release, tmp_path: Path) -> None:
    (tmp_path / "kubectl").symlink_to(binaries.kubectl())
    operator = f"--operator={release.namespace}/{release.name}"
    options = ("--no-browser", operator, f"--kubeconfig={team.cluster.kubeconfig}", f"--context={team.cluster.context}")
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "kubectl-queueworker"), "web", *options],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], READY_SECONDS)[0], "it prints where the page is"
        url = process.stdout.readline().split()[0]
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            assert "<title>" in http.get("/").raise_for_status().text
            http.get(f"/api/objects/{team.namespace}/{NAME}").raise_for_status()  # relayed, if a standby is asked
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: kubectl gets it too
        _, errors = process.communicate(timeout=STOP_SECONDS)
        assert (process.returncode, errors) == (0, "")
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def pause_while(team: Platform, prefix: str, change: Callable[[], object]) -> float:
    """Change the operator while long and short tasks run, of which none runs twice.

    Returns the longest time in seconds in which the queue was not pulled.
    """
    before = team.queue.account()
    # Each executor gets a long task first; the rest of the slots take short ones.
    ids = team.queue.submit(f"{prefix}-long", EXECUTORS, LONG_SECONDS)
    ids += team.queue.submit(prefix, 60, 0.3)
    team.queue.await_account("handed_out", lambda count: count >= before["handed_out"] + EXECUTORS + 9)
    change()
    account = team.queue.settle()
    assert account["completed"] - before["completed"] == len(ids)
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])
    assert sorted(name for name in team.started() if name in set(ids)) == sorted(ids)
    pause = team.longest_pause(ids)
    print(f"{prefix}: the longest pause in pulling was {pause:.1f} s")
    return pause


def test_a_leader_that_is_deleted_hands_over_without_a_pause(team: Platform, release: Release) -> None:
    leader = release.await_leader()
    delete = ("delete", "pod", leader, "-n", release.namespace, "--wait=false")
    pause = pause_while(team, "deleted", lambda: release.cluster.kubectl(*delete))
    assert release.await_leader(other_than=leader)
    release.await_ready(2)
    assert pause <= MAX_PAUSE_SECONDS


def test_a_rollout_of_the_operator_makes_no_pause(team: Platform, release: Release) -> None:
    target = (f"deployment/{release.name}", "-n", release.namespace)
    pause = pause_while(team, "rolled", lambda: release.cluster.kubectl("rollout", "restart", *target))
    release.cluster.kubectl("rollout", "status", *target, "--timeout=180s")
    release.await_ready(2)
    assert pause <= MAX_PAUSE_SECONDS


@pytest.mark.requires("processes")
def test_a_leader_whose_process_is_killed_leaves_nothing_undone(team: Platform, release: Release) -> None:
    """Executors still run its tasks, which its successor runs once more, as `recovery: Retry` says.

    The kubelet starts the container again in the same pod, so the successor is that pod or the other one.
    """
    before = team.queue.account()
    leader = release.pod(release.await_leader())
    name = leader["metadata"]["name"]
    orphaned = team.queue.submit("orphaned", EXECUTORS, LONG_SECONDS)
    team.await_started(orphaned)
    killed_at = time.monotonic()  # the queue's clock, because this machine is its node
    kill_container(leader, "operator")
    waiting = team.queue.submit("waiting", 20, 0.3)
    account = team.queue.settle()
    assert account["completed"] - before["completed"] == len(orphaned) + len(waiting)
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])
    runs = Counter(team.started())
    assert [runs[eval_id] for eval_id in orphaned] == [2] * len(orphaned)
    assert [runs[eval_id] for eval_id in waiting] == [1] * len(waiting)
    pause = team.handed_out(waiting)[0] - killed_at
    print(f"after the kill nothing was pulled for {pause:.1f} s")
    assert pause <= MAX_PAUSE_SECONDS + LEASE_SECONDS
    release.await_ready(2)
    assert (restarts(release.pod(name)), address(release.pod(name))) == (restarts(leader) + 1, address(leader))


def address(pod: dict[str, Any]) -> str:
    return str(pod["status"]["podIP"])


def test_an_executor_that_is_deleted_ends_its_tasks_first(team: Platform) -> None:
    """With the preStop hook that docs ask for, none of its tasks fails or runs again."""
    before = team.queue.account()
    ids = team.queue.submit("evicted", 30, 0.5)
    team.queue.await_account("handed_out", lambda count: count >= before["handed_out"] + 6)
    team.cluster.kubectl("delete", "pod", "executor-2", "-n", team.namespace, "--wait=false")
    account = team.queue.settle()
    assert account["completed"] - before["completed"] == len(ids)
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])
    team.await_routing()


def test_a_node_that_is_drained_ends_the_tasks_of_its_executors_first(team: Platform) -> None:
    """By the eviction API, which `kubectl drain` uses: the other pods of a single node could go nowhere."""
    before = team.queue.account()
    ids = team.queue.submit("drained", 30, 0.5)
    team.queue.await_account("handed_out", lambda count: count >= before["handed_out"] + 6)
    assert team.evict("executor-3") == ""
    account = team.queue.settle()
    assert account["completed"] - before["completed"] == len(ids)
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])
    team.await_routing()


@pytest.mark.requires("dual-stack")
def test_a_platform_with_ipv6_addresses_only_is_routed_for(cluster: Cluster, release: Release) -> None:
    """Then its executors get addresses of both families, and each is still one executor."""
    with platform(cluster, executors=2, drain_seconds=1, family="IPv6") as team:
        team.await_routing(2)
        team.route("ipv6")
        both = {"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}}
        cluster.kubectl("patch", "service/executor", "-n", team.namespace, "--type=merge", "-p", json.dumps(both))
        wait_until(lambda: families(team) == {"IPv4", "IPv6"}, "the Service has slices of both families", READY_SECONDS)
        team.route("both")
        team.await_routing(2)
        for address in cluster.get("service", release.name, "-n", release.namespace)["spec"]["clusterIPs"]:
            assert team.gets(f"http://{host_in_url(address)}:8084/readyz")


def families(team: Platform) -> set[str]:
    """Of the EndpointSlices of the executors that have endpoints."""
    slices = team.cluster.items("endpointslices", "-n", team.namespace, "-l", "kubernetes.io/service-name=executor")
    return {item["addressType"] for item in slices if item.get("endpoints")}


@pytest.mark.requires("processes")
def test_an_executor_whose_process_is_killed_costs_no_other_task_than_its_own(team: Platform) -> None:
    """They may have run to their end, so they fail without `retry`. Its address gets tasks again when it is back."""
    before = team.queue.account()
    pod = team.pod("executor-1")
    ids = team.queue.submit("shot", EXECUTORS * CONCURRENCY, LONG_SECONDS)
    team.await_started(ids)
    own = set(team.started("executor-1")) & set(ids)
    assert len(own) == CONCURRENCY
    kill_container(pod, "executor")
    account = team.queue.settle()
    assert team.failed() & set(ids) == own
    assert account["completed"] - before["completed"] == len(ids) - len(own)
    check_account(account, failed=before["failed"] + len(own), reported_twice=before["reported_twice"])
    assert sorted(eval_id for eval_id in team.started() if eval_id in set(ids)) == sorted(ids)
    wait_until(lambda: is_ready(team.pod("executor-1")), "the container runs again", READY_SECONDS)
    team.await_routing()
    later = team.queue.submit("later", 4 * EXECUTORS, 0.3)
    check_account(team.queue.settle(), failed=account["failed"])
    assert set(team.started("executor-1")) & set(later)
    again = team.pod("executor-1")
    assert (restarts(again), address(again)) == (restarts(pod) + 1, address(pod))


def test_it_routes_once_names_can_be_looked_up_again(team: Platform, release: Release) -> None:
    """The queue's and Redis' names cannot be looked up when the operator starts: it waits, and loses nothing."""
    before = team.queue.account()
    with without_dns(team.cluster):
        deployment = (f"deployment/{release.name}", "-n", release.namespace)
        team.cluster.kubectl("rollout", "restart", *deployment)
        team.cluster.kubectl("rollout", "status", *deployment, f"--timeout={READY_SECONDS}s")
        ids = team.queue.submit("unnamed", 5, 0)
        wait_until(lambda: ready_reason(team) not in {"", "Routing"}, "the condition says why", READY_SECONDS)
    account = team.queue.settle()
    assert account["completed"] - before["completed"] == len(ids)
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])


def ready_reason(team: Platform) -> str:
    conditions = team.worker()["status"]["conditions"]
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


def test_a_namespace_that_is_deleted_is_gone_in_seconds(cluster: Cluster, release: Release) -> None:
    assert release.await_leader()
    with platform(cluster, executors=1, drain_seconds=1) as other:
        other.await_routing(1)
        other.route("routed")
        started = time.monotonic()
        cluster.kubectl("delete", "namespace", other.namespace, f"--timeout={READY_SECONDS}s")
        seconds = time.monotonic() - started
        print(f"the namespace was gone after {seconds:.1f} s")
        assert seconds < DELETION_SECONDS


def test_an_uninstall_with_objects_present_stops_and_names_them(team: Platform, release: Release) -> None:
    """Once the objects are deleted, it succeeds."""
    refused = team.cluster.helm("uninstall", release.name, "-n", release.namespace, "--timeout=180s", check=False)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    if "v3.17." in team.cluster.helm("version", "--short").stdout:  # prints no logs of hooks
        said = team.cluster.kubectl("logs", f"job/{release.name}-uninstall", "-n", release.namespace).stdout
    assert f"{team.namespace}/{NAME}" in said
    release.await_ready(2)
    team.route("refused")
    team.cluster.kubectl("delete", "queueworker", "--all", "-n", team.namespace, "--timeout=60s")
    release.uninstall()
