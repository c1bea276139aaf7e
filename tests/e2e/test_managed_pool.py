"""The pool that the operator runs, on nodes: pods come, end their tasks and go. The tests share a pool, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from demo.objects import NAME, managed_worker
from tests.support.accounts import check_account
from tests.support.autoscaling import autoscaler, queue_metrics
from tests.support.cluster import SETTLE_SECONDS, installed, is_ready
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster
    from tests.support.platform_on_cluster import Platform

pytestmark = pytest.mark.requires("nodes")

DELETION_SECONDS = 60
SLEEP_HOOK = 30
"""The minor version of Kubernetes that takes `preStop.sleep`."""


@pytest.fixture(scope="module")
def pool(cluster: Cluster) -> Iterator[Platform]:
    """The platform without executors of its own, and a QueueWorker with a template."""
    if cluster.minor_version() < SLEEP_HOOK:
        pytest.skip("the hook that the operator gives executors needs Kubernetes 1.30: docs/managed-pool.md")
    with (
        installed(cluster, "replicaCount=1", "managedPools.enabled=true"),
        platform(cluster, executors=0) as team,
    ):
        yield team


def pods(team: Platform) -> list[dict[str, Any]]:
    """The pool's pods that are not on their way out."""
    found = team.cluster.items("pods", "-n", team.namespace, "-l", f"crucible.dev/queueworker={NAME}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


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


def begin(team: Platform, prefix: str, count: int) -> dict[str, int]:
    """Submit tasks, and return the account from before them once the first one is handed out."""
    before = team.queue.account()
    team.queue.submit(prefix, count, 1)
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


def test_an_autoscaler_scales_the_pool_by_the_length_of_the_queue(pool: Platform) -> None:
    with queue_metrics(pool.cluster, pool.namespace):
        before = pool.queue.account()
        pool.queue.submit("autoscaled", 60, 1)
        pool.cluster.apply([autoscaler(NAME, 2, 4)], pool.namespace)
        wait_until(lambda: has_pods(pool, 4), "the autoscaler has made four pods", SETTLE_SECONDS)
        assert_completed(pool, before, 60)
        wait_until(lambda: has_pods(pool, 2), "the autoscaler has left two pods", SETTLE_SECONDS)
        pool.cluster.kubectl("delete", "hpa", NAME, "-n", pool.namespace)


def test_a_pool_goes_with_its_queueworker_and_no_task_is_lost(pool: Platform) -> None:
    """What runs is reported, what waits stays in the queue, and what the operator made is gone in seconds."""
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
