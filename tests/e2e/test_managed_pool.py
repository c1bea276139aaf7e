"""The pool that the operator runs, on nodes: pods come, end their tasks and go. The tests share a pool, in order."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.objects import NAME, managed_worker, queue_worker
from devcluster.children import die_with_parent
from tests.support.accounts import check_account
from tests.support.autoscaling import autoscaler, queue_metrics
from tests.support.cluster import SETTLE_SECONDS, condition, installed, is_ready
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster, Release
    from tests.support.platform_on_cluster import Platform

pytestmark = [pytest.mark.requires("nodes"), pytest.mark.usefixtures("sleep_hook")]

DELETION_SECONDS = IDLE_SECONDS = 60
LONG_TIMEOUT = 600
"""Seconds that a task may take, and so seconds that a pod's preStop hook sleeps."""
ALL_NODES = ("--selector", "kubernetes.io/os=linux")


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """Two replicas of the operator, which may run pods."""
    with installed(cluster, "managedPools.enabled=true") as made:
        yield made


@pytest.fixture(scope="module")
def pool(cluster: Cluster, release: Release) -> Iterator[Platform]:
    """The platform without executors of its own, and a QueueWorker with a template."""
    with platform(cluster, executors=0) as team:
        yield team


def all_pods(team: Platform) -> list[dict[str, Any]]:
    """The pool's pods, also those on their way out."""
    return team.cluster.items("pods", "-n", team.namespace, "-l", f"crucible.dev/queueworker={NAME}")


def pods(team: Platform) -> list[dict[str, Any]]:
    """The pool's pods that are not on their way out."""
    return [pod for pod in all_pods(team) if "deletionTimestamp" not in pod["metadata"]]


def has_pods(team: Platform, count: int) -> bool:
    return sum(is_ready(pod) for pod in pods(team)) == count == len(pods(team))


def change(team: Platform, worker: dict[str, Any]) -> None:
    team.cluster.apply([worker], team.namespace)


def scale(team: Platform, count: int) -> None:
    team.cluster.kubectl("scale", f"queueworker/{NAME}", "-n", team.namespace, f"--replicas={count}")


def has_revision(team: Platform, revision: str, count: int) -> bool:
    environments = [pod["spec"]["containers"][0]["env"] for pod in pods(team)]
    new = sum({"name": "REVISION", "value": revision} in environment for environment in environments)
    return new == count and has_pods(team, count)


def begin(team: Platform, prefix: str, count: int, seconds: float = 1) -> dict[str, int]:
    """Submit tasks, and return the account from before them once the first one is handed out."""
    before = team.queue.account()
    team.queue.submit(prefix, count, seconds)
    team.queue.await_account("handed_out", lambda handed: handed > before["handed_out"])
    return before


def assert_completed(team: Platform, before: dict[str, int], count: int) -> None:
    account = team.queue.settle()
    assert account["completed"] - before["completed"] == count
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])


def test_a_template_becomes_pods_that_run_tasks(pool: Platform) -> None:
    change(pool, managed_worker(pool.cluster.platform_image, 2))
    pool.cluster.kubectl(
        "wait", f"queueworker/{NAME}", "-n", pool.namespace, "--for=condition=PoolReady", "--timeout=180s"
    )
    assert sorted(pod["metadata"]["name"] for pod in pods(pool)) == ["legacy-executor-1", "legacy-executor-2"]
    pool.await_routing(2)
    pool.route("pool")


def test_a_pool_that_is_scaled_in_ends_its_tasks_first(pool: Platform) -> None:
    scale(pool, 3)
    wait_until(lambda: has_pods(pool, 3), "three pods are Ready", SETTLE_SECONDS)
    pool.await_routing(3)
    before = begin(pool, "scaled-in", 24)
    scale(pool, 1)
    assert_completed(pool, before, 24)
    wait_until(lambda: has_pods(pool, 1), "one pod is left", SETTLE_SECONDS)


def test_a_new_template_reaches_every_pod_without_a_failed_task(pool: Platform) -> None:
    scale(pool, 2)
    wait_until(lambda: has_pods(pool, 2), "two pods are Ready", SETTLE_SECONDS)
    before = begin(pool, "updated", 24)
    change(pool, managed_worker(pool.cluster.platform_image, 2, REVISION="second"))
    assert_completed(pool, before, 24)
    wait_until(lambda: has_revision(pool, "second", 2), "both pods are of the new template", SETTLE_SECONDS)


def test_a_template_that_does_not_start_stops_at_its_first_pod(pool: Platform) -> None:
    before = begin(pool, "bad-image", 24)
    change(pool, managed_worker("registry.invalid/executor:1", 2, REVISION="bad"))
    wait_until(lambda: "ImagePull" in pool_message(pool), "the condition has the pod's reason", SETTLE_SECONDS)
    assert [pod for pod in pods(pool) if is_ready(pod)], "the other pod goes on"
    assert_completed(pool, before, 24)
    change(pool, managed_worker(pool.cluster.platform_image, 2, REVISION="third"))
    wait_until(lambda: has_revision(pool, "third", 2), "both pods are of the good template", SETTLE_SECONDS)


def pool_message(team: Platform) -> str:
    """The message of the condition PoolReady."""
    conditions = team.worker()["status"]["conditions"]
    return next(str(found["message"]) for found in conditions if found["type"] == "PoolReady")


def test_pods_are_evicted_one_at_a_time_and_end_their_tasks_first(pool: Platform) -> None:
    before = begin(pool, "evicted", 24)
    wait_until(lambda: not pool.evict("legacy-executor-1"), "the budget allows an eviction", SETTLE_SECONDS)
    assert "disruption budget" in pool.evict("legacy-executor-2")
    assert_completed(pool, before, 24)
    wait_until(lambda: has_pods(pool, 2), "two pods are Ready", SETTLE_SECONDS)


def test_kubectl_drain_takes_one_pod_at_a_time_and_no_task_is_lost(pool: Platform) -> None:
    """There is no node for the pod that is evicted first, so the drain waits until the nodes take pods again."""
    before = begin(pool, "drained", 60)
    with draining(pool) as (drain, log):
        wait_until(lambda: has_unscheduled_pod(pool), "an evicted pod waits for a node", SETTLE_SECONDS)
        assert sum(is_ready(pod) for pod in pods(pool)) == 1, "the budget keeps the other pod"
        assert drain.poll() is None, log.read_text()
        pool.cluster.kubectl("uncordon", *ALL_NODES)
        assert drain.wait(SETTLE_SECONDS) == 0, log.read_text()
    assert_completed(pool, before, 60)
    wait_until(lambda: has_pods(pool, 2), "two pods are Ready", SETTLE_SECONDS)


@contextmanager
def draining(team: Platform) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`kubectl drain` of all nodes for the pool's pods, with its output in a file. In the end, nodes are uncordoned."""
    what = (*ALL_NODES, f"--pod-selector=crucible.dev/queueworker={NAME}", "--ignore-daemonsets")
    command = team.cluster.command("drain", *what, "--delete-emptydir-data", f"--timeout={SETTLE_SECONDS}s")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "drain.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=die_with_parent)
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()
            team.cluster.kubectl("uncordon", *ALL_NODES)


def has_unscheduled_pod(team: Platform) -> bool:
    return any(condition(pod, "PodScheduled") == "False" for pod in pods(team))


def test_an_autoscaler_scales_the_pool_by_the_length_of_the_queue(pool: Platform) -> None:
    with queue_metrics(pool.cluster, pool.namespace):
        before = pool.queue.account()
        pool.queue.submit("autoscaled", 60, 1)
        pool.cluster.apply([autoscaler(NAME, 2, 4)], pool.namespace)
        wait_until(lambda: has_pods(pool, 4), "the autoscaler has made four pods", SETTLE_SECONDS)
        assert_completed(pool, before, 60)
        wait_until(lambda: has_pods(pool, 2), "the autoscaler has left two pods", SETTLE_SECONDS)
        pool.cluster.kubectl("delete", "hpa", NAME, "-n", pool.namespace)


def test_the_next_leader_goes_on_with_a_scale_in_and_a_new_template(pool: Platform, release: Release) -> None:
    scale(pool, 3)
    wait_until(lambda: has_pods(pool, 3), "three pods are Ready", SETTLE_SECONDS)
    leader = release.await_leader()
    before = begin(pool, "led", 30)
    change(pool, managed_worker(pool.cluster.platform_image, 2, REVISION="fourth"))
    wait_until(lambda: "leaving" in pool_message(pool), "pods leave", SETTLE_SECONDS)
    pool.cluster.kubectl("delete", "pod", leader, "-n", release.namespace, "--wait=false")
    release.await_leader(other_than=leader)
    assert not has_revision(pool, "fourth", 2), "the first leader had not finished"
    assert_completed(pool, before, 30)
    wait_until(lambda: has_revision(pool, "fourth", 2), "both pods are of the new template", SETTLE_SECONDS)


def test_a_policy_that_refuses_its_deletions_keeps_the_operator_from_nothing_else(
    pool: Platform, release: Release
) -> None:
    """After a few tries the StatefulSet deletes the pod. Status and routing go on all the time, by one router."""
    with undeletable_pods(pool, f"system:serviceaccount:{release.namespace}:{release.name}"):
        scale(pool, 1)
        wait_until(lambda: "denied request" in pool_message(pool), "the condition says who refuses", SETTLE_SECONDS)
        completed = tasks_in_status(pool)
        pool.route("refused", 5)
        wait_until(lambda: tasks_in_status(pool) == completed + 5, "the status counts the tasks", SETTLE_SECONDS)
        wait_until(lambda: len(pods(pool)) == 1, "one pod is left", SETTLE_SECONDS)
    scale(pool, 2)
    wait_until(lambda: has_pods(pool, 2), "two pods are Ready", SETTLE_SECONDS)
    pool.await_routing(2)


def tasks_in_status(team: Platform) -> int:
    completed: int = team.worker()["status"]["tasks"]["completed"]
    return completed


@contextmanager
def undeletable_pods(team: Platform, user: str) -> Iterator[None]:
    """That user may not delete pods of the platform, until the end of the block."""
    name = f"no-deletions-{team.namespace}"
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"]}
            ],
        },
        "matchConditions": [{"name": "user", "expression": f"request.userInfo.username == '{user}'"}],
        "validations": [{"expression": "false", "message": "no deletions here"}],
    }
    metadata = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    policy = metadata | {"kind": "ValidatingAdmissionPolicy", "spec": spec}
    bound = {"policyName": name, "validationActions": ["Deny"]}
    team.cluster.apply([policy, metadata | {"kind": "ValidatingAdmissionPolicyBinding", "spec": bound}], team.namespace)
    tried = ("delete", "pods", "--all", "-n", team.namespace, f"--as={user}", "--dry-run=server", "--wait=false")
    try:
        wait_until(
            lambda: "denied request" in team.cluster.kubectl(*tried, check=False).stderr,
            "the policy is in force",
            SETTLE_SECONDS,
        )
        yield
    finally:
        kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
        team.cluster.kubectl("delete", kinds, name)


def test_a_template_that_is_removed_lets_its_pods_end_their_tasks(pool: Platform) -> None:
    before = begin(pool, "removed", 2, seconds=3)
    change(pool, queue_worker())
    assert_completed(pool, before, 2)
    wait_until(lambda: belongings(pool) == "", "all that the operator made is gone", DELETION_SECONDS)


def test_idle_pods_go_at_once_whatever_the_timeout_of_a_task(pool: Platform) -> None:
    change(pool, managed_worker(pool.cluster.platform_image, 3, LONG_TIMEOUT))
    wait_until(lambda: has_pods(pool, 3), "three pods are Ready", SETTLE_SECONDS)
    pool.await_routing(3)
    scale(pool, 1)
    wait_until(lambda: len(all_pods(pool)) == 1, "one pod is left", IDLE_SECONDS)


def test_a_pool_goes_with_its_queueworker_and_no_task_is_lost(pool: Platform) -> None:
    """What runs is reported, what waits stays in the queue, and what the operator made is gone in seconds, although a
    task may take minutes.
    """
    before = begin(pool, "deleted", 24)
    pool.cluster.kubectl("delete", "queueworker", NAME, "-n", pool.namespace, f"--timeout={DELETION_SECONDS}s")
    account = pool.queue.account()
    completed = account["completed"] - before["completed"]
    assert (account["processing"], account["queued"]) == (0, 24 - completed)
    assert completed == account["handed_out"] - before["handed_out"]
    check_account(account, failed=before["failed"], reported_twice=before["reported_twice"])
    wait_until(lambda: belongings(pool) == "", "all that the operator made is gone", DELETION_SECONDS)


def belongings(team: Platform) -> str:
    kinds = "statefulsets,services,poddisruptionbudgets,pods"
    select = ("-l", f"crucible.dev/queueworker={NAME}", "-o", "name")
    return team.cluster.kubectl("get", kinds, "-n", team.namespace, *select).stdout
