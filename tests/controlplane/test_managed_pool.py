"""The pool that the operator runs, on a real API server. StatefulSet controller and kubelet are played.

It has a control plane of its own, because calls are refused here on purpose.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.server import OPERATOR_ACCOUNT, ControlPlane
from tests.controlplane import conftest as shared
from tests.support.operating import (
    condition,
    done,
    eventually,
    install,
    is_ready,
    operator,
    spec,
    status,
    submit,
    worker,
)
from tests.support.played_pods import Played

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.redis_server import RedisServer
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess
    from tests.support.operating import Operator

PATIENCE = 60
"""Seconds that something may take on a busy machine."""
RIGHTS = [
    {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["list", "watch", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "patch", "delete"]},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]},
    {"apiGroups": ["crucible.dev"], "resources": ["queueworkers/finalizers"], "verbs": ["update"]},
]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    found: Kubectl = shared.kubectl.__wrapped__(control_plane)  # type: ignore[attr-defined]
    install(found)
    permit(found, RIGHTS)
    return found


def permit(kubectl: Kubectl, rules: list[dict[str, Any]]) -> None:
    """Give the operator exactly these rights for pools."""
    group = "rbac.authorization.k8s.io"
    name = {"name": "queueworker-operator-managed-pools"}
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": name, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": name,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", **name},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR_ACCOUNT[1], "namespace": OPERATOR_ACCOUNT[0]}],
    }
    kubectl("apply", "-f", "-", input=yaml.safe_dump_all([role, binding]))


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    with operator(control_plane, folder, environment={"MANAGED_POOLS": "true"}) as started:
        eventually(lambda: is_ready(started), PATIENCE)
        yield started


@pytest.fixture
def played(control_plane: ControlPlane, namespace: str) -> Iterator[Played]:
    with Played(control_plane, namespace) as found:
        yield found
    assert found.errors == []


def managed(queue: DemoProcess, redis: RedisServer, count: int = 2, image: str = "executor:1") -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "executor", "image": image}]}}
    executors = {"count": count, "template": template, "concurrency": 2}
    return spec(queue, redis) | {"executors": executors, "routing": {"taskTimeoutSeconds": 3}}


def pool(kubectl: Kubectl, namespace: str) -> tuple[str, str]:
    return condition(kubectl, namespace, "legacy", "PoolReady")[:2]


def test_a_template_makes_pods_and_tasks_are_routed_to_them(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    submit(queue, 20)
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **managed(queue, shared_redis)))
    kubectl("wait", "qw/legacy", "-n", namespace, "--for=condition=PoolReady", "--timeout=60s")
    eventually(lambda: done(queue, 20), PATIENCE)
    assert status(kubectl, namespace, "legacy")["executors"]["summary"] == "2/2"
    assert sorted(played.pods()) == ["legacy-executor-1", "legacy-executor-2"]
    for kind in ("service", "statefulset", "poddisruptionbudget"):
        got = json.loads(kubectl("get", kind, "legacy-executor", "-n", namespace, "-o", "json").stdout)
        assert [o["kind"] for o in got["metadata"]["ownerReferences"]] == ["QueueWorker"]
