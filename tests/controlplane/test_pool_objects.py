"""The objects of a pool on a real API server: who may have them, and which fields are whose."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import Cluster
from queueworker.controller.kinds import PODS
from queueworker.controller.managed_pool.apply import BUDGET, SERVICE, STATEFUL_SET, PoolApi, PoolProblem
from queueworker.controller.managed_pool.objects import Owner, pool_bodies
from queueworker.controller.managed_pool.observed import PoolObjects
from queueworker.resource.names import LABEL_QUEUEWORKER
from queueworker.resource.reasons import Reason
from queueworker.resource.spec import QueueWorkerSpec
from tests.support.operating import install_crd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from devcluster.server import ControlPlane
    from queueworker.controller.kinds import Kind
    from tests.controlplane.conftest import Kubectl

    Body = dict[str, Any]


class RacedCluster(Cluster):
    """`after_look` is called once, after the first look at an object that is not there."""

    after_look: Callable[[], object] | None = None

    async def request(self, *args: Any, **options: Any) -> Body:
        try:
            return await super().request(*args, **options)
        except ApiException as error:
            if error.status == 404 and self.after_look is not None:
                await asyncio.to_thread(self.after_look)
                self.after_look = None
            raise


@pytest.fixture
async def cluster(
    control_plane: ControlPlane, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RacedCluster]:
    install_crd(kubectl)
    for module in ("config", "config.kube_config"):  # which read KUBECONFIG when they are imported
        monkeypatch.setattr(f"kubernetes.aio.{module}.KUBE_CONFIG_DEFAULT_LOCATION", control_plane.admin_kubeconfig)
    async with RacedCluster(lambda: None) as found:
        yield found


def bodies(owner: Owner, **container: Any) -> dict[Kind, Body]:
    template = {"spec": {"containers": [{"name": "executor", "image": "executor:1"} | container]}}
    made = pool_bodies(owner, QueueWorkerSpec.model_validate({"executors": {"template": template}}))
    return {SERVICE: made.service, BUDGET: made.budget, STATEFUL_SET: made.with_replicas(1)}


@pytest.mark.parametrize("kind", [SERVICE, BUDGET, STATEFUL_SET], ids=lambda kind: kind.name)
async def test_an_object_that_appears_after_the_look_is_not_adopted_even_if_it_is_as_ours_would_be(
    cluster: RacedCluster, kubectl: Kubectl, namespace: str, kind: Kind
) -> None:
    owner = Owner(namespace, "legacy", "uid-1")
    body = bodies(owner)[kind]
    metadata = {key: value for key, value in body["metadata"].items() if key != "ownerReferences"}

    def create() -> None:
        kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(body | {"metadata": metadata}))

    def live() -> Body:
        found: Body = json.loads(
            kubectl(
                "get", kind.plural, "legacy-executor", "-n", namespace, "--show-managed-fields", "-o", "json"
            ).stdout
        )
        return found

    cluster.after_look = create
    api = PoolApi(cluster, owner)
    with pytest.raises(ApiException) as refused:
        await api.apply(kind, body)
    assert refused.value.status == 409
    theirs = live()
    assert "ownerReferences" not in theirs["metadata"]
    assert [entry["manager"] for entry in theirs["metadata"]["managedFields"]] == ["kubectl-create"]
    with pytest.raises(PoolProblem) as taken:
        await api.apply(kind, body)
    assert taken.value.reason is Reason.NAME_TAKEN
    assert live() == theirs


@pytest.mark.parametrize("kind", [SERVICE, BUDGET, STATEFUL_SET], ids=lambda kind: kind.name)
async def test_what_was_created_is_applied_from_then_on_and_only_its_fields_are_kept(
    cluster: RacedCluster, namespace: str, kind: Kind
) -> None:
    owner = Owner(namespace, "legacy", "uid-1")
    api = PoolApi(cluster, owner)
    body = bodies(owner)[kind]
    made = await api.apply(kind, body)
    assert made.found is None
    again = await api.apply(kind, body)
    assert (again.found is None, again.meddlers) == (False, ())
    assert again.body["spec"] == made.body["spec"]
    assert again.body["metadata"].get("generation") == made.body["metadata"].get("generation")
    assert {(entry["manager"], entry["operation"]) for entry in again.body["metadata"]["managedFields"]} == {
        ("queueworker-operator", "Apply")
    }


async def test_a_part_of_the_template_that_was_there_at_the_creation_can_be_removed(
    cluster: RacedCluster, namespace: str
) -> None:
    owner = Owner(namespace, "legacy", "uid-1")
    api = PoolApi(cluster, owner)
    first = bodies(owner, env=[{"name": "MODE", "value": "fast"}])[STATEFUL_SET]
    first["metadata"]["annotations"]["crucible.dev/x"] = "y"
    await api.apply(STATEFUL_SET, first)
    changed = (await api.apply(STATEFUL_SET, bodies(owner)[STATEFUL_SET])).body
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    assert [variable["name"] for variable in container["env"]] == ["EXECUTOR_ID"]
    assert "crucible.dev/x" not in changed["metadata"]["annotations"]


async def test_a_pod_with_a_time_that_python_has_not_does_not_end_the_list(
    cluster: RacedCluster, kubectl: Kubectl, namespace: str
) -> None:
    """Whoever may write the status of one pod would stop all pools."""
    labels = {LABEL_QUEUEWORKER: "legacy"}
    pod = {
        "metadata": {"name": "legacy-executor-1", "labels": labels},
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    }
    kubectl("create", "-n", namespace, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "Pod"} | pod))
    for year in ("0000", "9999"):
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": f"{year}-12-31T23:59:59-01:00"}
        status = json.dumps({"status": {"conditions": [ready]}})
        kubectl("patch", "pod", "legacy-executor-1", "-n", namespace, "--subresource=status", "-p", status)
        objects = PoolObjects()
        objects.pods.listed(namespace, await cluster.list_all(PODS, namespace), ())
        (seen,) = objects.pods_of(namespace, "legacy")
        assert seen.ready


async def test_a_change_that_comes_between_look_and_apply_is_not_the_templates_fault(
    cluster: RacedCluster, kubectl: Kubectl, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner(namespace, "legacy", "uid-1")
    api = PoolApi(cluster, owner)
    body = bodies(owner)[STATEFUL_SET]
    await api.apply(STATEFUL_SET, body)
    look = api._read

    async def outdated(kind: Kind, name: str) -> Body | None:
        found = await look(kind, name)
        await asyncio.to_thread(kubectl, "annotate", "statefulset", name, "x=y", "-n", namespace)
        return found

    monkeypatch.setattr(api, "_read", outdated)
    with pytest.raises(ApiException) as refused:
        await api.apply(STATEFUL_SET, body)
    assert refused.value.status == 409, "it is tried again; 422 would be InvalidTemplate"
