"""What the condition PoolReady says."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.controller.managed_pool.condition import pool_state
from queueworker.controller.managed_pool.observed import PoolObjects, pod_of
from queueworker.controller.managed_pool.plan import Plan, PoolPod, PoolStatefulSet, WantedPool
from queueworker.controller.managed_pool.pool import tasks_by_pod
from queueworker.resource.reasons import Reason
from tests.support.web_source import executor, snapshot

NOW = 1_000_000.0
WANTED = WantedPool(2, "new", 40)


def pod(ordinal: int, template_hash: str = "new", **fields: Any) -> PoolPod:
    values: dict[str, Any] = {"ready": True, "uid": "u", "changed_at": NOW - 10}
    return PoolPod(f"x-executor-{ordinal}", ordinal, template_hash=template_hash, **values | fields)


def existing(replicas: int) -> PoolStatefulSet:
    return PoolStatefulSet("x-executor", "uid-1", replicas, "new")


@pytest.mark.parametrize(
    ("replicas", "pods", "reason", "words"),
    [
        (2, [pod(1), pod(2)], Reason.ALL_READY, "2 of 2"),
        (2, [pod(1), pod(2), pod(3, terminating=True)], Reason.ALL_READY, "2 of 2"),
        (3, [pod(1), pod(2), pod(3)], Reason.PROGRESSING, "2 of 2"),
        (2, [pod(1)], Reason.PROGRESSING, "not there yet: x-executor-2"),
        (2, [pod(1), pod(2, "old")], Reason.PROGRESSING, "1 of 2"),
        (2, [pod(1), pod(2, ready=False, problem="Pulling")], Reason.PROGRESSING, "x-executor-2 is starting (Pulling)"),
        (2, [pod(1), pod(2, ready=False, changed_at=NOW - 120, problem="X")], Reason.POD_NOT_READY, "120 s (X)"),
        (2, [pod(1), pod(2, terminating=True)], Reason.PROGRESSING, "1 of 2"),
        (2, [pod(1), pod(2, terminating=True, changed_at=NOW - 120)], Reason.POD_NOT_READY, "delete the Node, or the"),
    ],
)
def test_the_pool_is_ready_if_all_its_pods_are_of_the_template_and_ready(
    replicas: int, pods: list[PoolPod], reason: Reason, words: str
) -> None:
    state = pool_state(WANTED, existing(replicas), pods, Plan(), NOW)
    assert state.reason is reason
    assert (state.status == "True") is (reason is Reason.ALL_READY)
    assert words in state.message


def test_a_pod_that_was_deleted_changes_last_when_its_grace_ends() -> None:
    metadata = {"name": "x-executor-1", "creationTimestamp": "2026-11-01T11:00:00Z"}
    gone = pod_of({"metadata": metadata | {"deletionTimestamp": "2026-11-01T12:00:50Z"}, "status": {}})
    assert gone.changed_at - pod_of({"metadata": metadata, "status": {}}).changed_at == 3650


def test_pods_that_leave_are_named() -> None:
    plan = Plan(frozenset({"x-executor-2"}), 2)
    assert "x-executor-2" in pool_state(WANTED, existing(2), [pod(1), pod(2, "old")], plan, NOW).message


def test_an_update_that_waits_for_a_pod_that_may_never_come_says_what_to_do() -> None:
    pods = [pod(1, "old"), pod(2, "old")]
    for awaited in (3, 9999):  # it is read from an annotation
        message = pool_state(WantedPool(3, "new", 40), existing(3), pods, Plan(awaited=awaited), NOW).message
        assert message.endswith("the next pod is updated when 3 are ready: if that cannot be, lower executors.count")


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}]},
            "ErrImagePull: no",
        ),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}, "Unschedulable"),
        ({"conditions": [{"type": "Ready", "status": "False", "message": "unready: [x]"}]}, "unready: [x]"),
        ({"phase": "Failed", "reason": "Evicted", "message": "out of memory"}, "Evicted: out of memory"),
        ({}, ""),
    ],
)
def test_a_pod_says_why_it_is_not_ready(status: dict[str, Any], problem: str) -> None:
    seen = pod_of({"metadata": {"name": "x-executor-12"}, "status": status})
    assert (seen.ordinal, seen.ready, seen.problem) == (12, False, problem)


def test_only_a_stateful_set_and_pods_of_the_object_itself_count() -> None:
    objects = PoolObjects()
    label = {"crucible.dev/queueworker": "x"}

    def body(name: str, **more: Any) -> dict[str, Any]:
        return {"metadata": {"namespace": "team", "name": name, "labels": label} | more, "spec": {"template": {}}}

    owner = [{"uid": "uid-1", "controller": True}]
    objects.stateful_sets.changed(None, body("x-executor", ownerReferences=owner))
    for name in ("x-executor-2", "x-executor-1", "x-executor-01", "job-7", "x-executor"):
        objects.pods.changed(None, body(name))
    assert [p.name for p in objects.pods_of("team", "x")] == ["x-executor-1", "x-executor-2"]
    assert objects.stateful_set("team", "x", "uid-1") is not None
    assert objects.stateful_set("team", "x", "uid-2") is None, "of an object that had the same name"
    objects.pods.listed("team", [], {("team", "x-executor-1")})
    assert [p.name for p in objects.pods_of("team", "x")] == ["x-executor-1"], "an event says more than the list"


def test_nobody_knows_the_tasks_without_a_router_or_beside_another_one() -> None:
    executors = (executor(1, in_flight=2), executor(1, in_flight=1, leaving=True), executor(2))
    assert tasks_by_pod(snapshot(executors=executors)) == {"executor-1": 3, "executor-2": 0}
    assert tasks_by_pod(snapshot(executors=executors, rivals=1)) is None
    assert tasks_by_pod(None) is None
