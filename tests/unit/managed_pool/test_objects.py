"""The objects of a pool: what is added to a template, what stays as it is, and whom an object belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.controller.managed_pool.objects import Owner, meddlers, owner_of, pool_bodies, taken_over
from queueworker.controller.managed_pool.observed import stateful_set_of
from queueworker.resource.names import ANNOTATION_TEMPLATE_HASH, ANNOTATION_UPDATE_AWAITS, FIELD_MANAGER
from queueworker.resource.spec import QueueWorkerSpec

OWNER = Owner("team", "legacy", "uid-1")


def spec_of(container: dict[str, Any], *, timeout: int = 30, **pod: Any) -> QueueWorkerSpec:
    containers = [{"name": "executor", "image": "executor:1"} | container]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers} | pod}
    executors = {"template": template, "count": 3, "port": 9000, "healthCheck": {"path": "/up"}}
    return QueueWorkerSpec.model_validate({"executors": executors, "routing": {"taskTimeoutSeconds": timeout}})


def pod_of(spec: QueueWorkerSpec) -> dict[str, Any]:
    pod: dict[str, Any] = pool_bodies(OWNER, spec).stateful_set["spec"]["template"]["spec"]
    return pod


def test_what_a_template_leaves_open_is_added() -> None:
    pod = pod_of(spec_of({}))
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] == 50
    assert pod["automountServiceAccountToken"] is False
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    assert container["env"] == [{"name": "EXECUTOR_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/up", "port": "http"}
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 30}}}


def test_what_a_template_says_stays() -> None:
    own = {
        "ports": [{"name": "http", "containerPort": 80}],
        "env": [{"name": "EXECUTOR_ID", "value": "x"}],
        "readinessProbe": {"tcpSocket": {"port": 80}},
        "lifecycle": {"preStop": {"exec": {"command": ["drain"]}}},
    }
    pod = pod_of(spec_of(own, terminationGracePeriodSeconds=5, automountServiceAccountToken=True))
    assert pod["containers"] == [{"name": "executor", "image": "executor:1"} | own]
    assert (pod["terminationGracePeriodSeconds"], pod["automountServiceAccountToken"]) == (5, True)


@pytest.mark.parametrize(("grace", "hook"), [(100, 30), (10, 9), (1, None), (0, None)])
def test_the_pre_stop_hook_is_shorter_than_the_grace(grace: int, hook: int | None) -> None:
    (container,) = pod_of(spec_of({}, terminationGracePeriodSeconds=grace))["containers"]
    assert container.get("lifecycle") == (None if hook is None else {"preStop": {"sleep": {"seconds": hook}}})


def test_the_executor_is_the_container_with_the_port_http() -> None:
    spec = spec_of({})
    assert spec.executors.template is not None
    spec.executors.template.spec["containers"].insert(0, {"name": "proxy", "image": "p", "ports": "nonsense"})
    spec.executors.template.spec["containers"][1]["ports"] = [{"name": "http", "containerPort": 1}]
    proxy, executor = pod_of(spec)["containers"]
    assert "readinessProbe" not in proxy
    assert "readinessProbe" in executor


@pytest.mark.parametrize("part", [{"ports": "8083"}, {"env": "x"}, {"lifecycle": []}, {"ports": [1]}, {"env": [None]}])
def test_a_part_that_makes_no_sense_is_left_to_the_api_server(part: dict[str, Any]) -> None:
    assert pool_bodies(OWNER, spec_of(part)).template_hash


def test_a_port_of_that_number_with_another_name_is_the_executors() -> None:
    bodies = pool_bodies(OWNER, spec_of({"ports": [{"name": "web", "containerPort": 9000}]}))
    assert bodies.service["spec"]["ports"] == [{"name": "http", "port": 9000, "targetPort": 9000}]


def test_the_hash_follows_the_pods_and_not_their_number() -> None:
    def digest(**changed: Any) -> str:
        return pool_bodies(OWNER, spec_of({}, **changed)).template_hash

    bodies = pool_bodies(OWNER, spec_of({}))
    assert digest() == bodies.template_hash != digest(timeout=31)
    pods = bodies.with_replicas(7)["spec"]["template"]["metadata"]
    assert pods["annotations"] == {ANNOTATION_TEMPLATE_HASH: bodies.template_hash}
    assert pods["labels"] == {"a": "b", "crucible.dev/queueworker": "legacy"}


def test_the_spec_itself_is_not_changed() -> None:
    spec = spec_of({})
    before = spec.model_dump_json()
    pool_bodies(OWNER, spec)
    assert spec.model_dump_json() == before


def test_the_stateful_set_replaces_no_pod_by_itself_and_counts_from_one() -> None:
    made = pool_bodies(OWNER, spec_of({})).with_replicas(3)
    assert {key: made["spec"][key] for key in ("replicas", "ordinals", "podManagementPolicy", "updateStrategy")} == {
        "replicas": 3,
        "ordinals": {"start": 1},
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
    }
    assert owner_of(made) == "uid-1"


def test_what_an_update_waits_for_is_read_again_from_the_stateful_set() -> None:
    bodies = pool_bodies(OWNER, spec_of({}))
    assert [stateful_set_of(bodies.with_replicas(3, awaited)).awaited for awaited in (0, 2)] == [0, 2]
    edited = bodies.with_replicas(3)
    for text in ("two", "-2", "", "9" * 5000):
        edited["metadata"]["annotations"] = {ANNOTATION_UPDATE_AWAITS: text}
        assert stateful_set_of(edited).awaited == 0


def entry(manager: str, fields: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "fieldsV1": fields} | more


OURS = entry(FIELD_MANAGER, {"f:spec": {"f:replicas": {}}}, operation="Apply")


def test_fields_that_others_wrote_into_the_spec_become_ours_and_their_labels_stay_theirs() -> None:
    label: dict[str, Any] = {"f:metadata": {"f:labels": {"f:x": {}}}}
    edit = entry("kubectl-edit", label | {"f:spec": {"f:template": {"f:spec": {"f:x": {}}}}})
    status = entry("kube-controller-manager", {"f:status": {}}, subresource="status")
    scale = entry("kubectl", {"f:spec": {"f:replicas": {}}}, subresource="scale")
    body = {"apiVersion": "apps/v1", "metadata": {"managedFields": [OURS, edit, status, scale]}}
    assert meddlers(body) == ["kubectl", "kubectl-edit"]
    ours = OURS | {"fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:x": {}}}}}}
    assert taken_over(body) == [ours, edit | {"fieldsV1": label}, status]
    assert meddlers({"metadata": {"managedFields": taken_over(body)}}) == []


def test_an_object_that_only_we_wrote_has_no_meddlers() -> None:
    status = entry("kube-controller-manager", {"f:status": {}}, subresource="status")
    assert meddlers({"metadata": {"managedFields": [OURS, status]}}) == []
    assert meddlers({"metadata": {}}) == []


def test_what_our_creation_wrote_becomes_what_we_applied() -> None:
    """A POST is an update to managedFields; fields that are not taken over would outlive their removal."""
    metadata: dict[str, Any] = {"f:metadata": {"f:annotations": {"f:x": {}}}}
    created = entry(FIELD_MANAGER, metadata | {"f:spec": {"f:replicas": {}}})
    status = entry("kube-controller-manager", {"f:status": {}}, subresource="status")
    body: dict[str, Any] = {"apiVersion": "apps/v1", "metadata": {"managedFields": [created, status]}}
    assert meddlers(body) == []
    ours = {"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1"}
    assert taken_over(body) == [status, ours | {"fieldsV1": created["fieldsV1"]}]
    body["metadata"]["managedFields"] = taken_over(body)
    assert taken_over(body) == body["metadata"]["managedFields"]
