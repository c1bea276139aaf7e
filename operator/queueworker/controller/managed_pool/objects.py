"""The Kubernetes objects of a pool: what they should be, and whom those that are there belong to. Pure functions."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from queueworker.resource.names import (
    ANNOTATION_TEMPLATE_HASH,
    ANNOTATION_UPDATE_AWAITS,
    API_VERSION,
    FIELD_MANAGER,
    KIND,
    LABEL_QUEUEWORKER,
    pool_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.resource.spec import QueueWorkerSpec

    Body = dict[str, Any]

PORT = "http"
"""Name of the Service's port, and of the container's port that is the executor."""
MAX_NAME = 43
"""Characters of a QueueWorker's name: with "-executor-" and a hash of ten characters it is the value of a label."""
GRACE_MARGIN_SECONDS = 20
"""A pod's grace above a task's timeout: its last task ends during the preStop hook, then the container stops."""
PROBE_SECONDS = 2
"""Period of a readiness probe: a new pod joins the router as soon as it is ready."""
APPLY = "Apply"
"""The operation of server-side apply in managedFields; that of all other calls is Update."""
STATUS = "status"
"""The subresource whose fields others own rightly."""


class Owner(NamedTuple):
    """The QueueWorker that the objects belong to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PoolBodies:
    """The three objects as they are applied. The StatefulSet has no `replicas` yet."""

    service: Body
    budget: Body
    stateful_set: Body
    template_hash: str

    def with_replicas(self, replicas: int, awaited: int = 0) -> Body:
        """The StatefulSet. `awaited` is `Plan.awaited`."""
        made = self.stateful_set | {"spec": self.stateful_set["spec"] | {"replicas": replicas}}
        if not awaited:
            return made
        metadata = made["metadata"]
        annotations = metadata["annotations"] | {ANNOTATION_UPDATE_AWAITS: str(awaited)}
        return made | {"metadata": metadata | {"annotations": annotations}}


def pool_bodies(owner: Owner, spec: QueueWorkerSpec) -> PoolBodies:
    """The spec has a template."""
    template = pod_template(owner, spec)
    digest = template_hash(template)
    _add(template["metadata"], "annotations", {ANNOTATION_TEMPLATE_HASH: digest})
    selector = {LABEL_QUEUEWORKER: owner.name}
    service = {
        "clusterIP": "None",
        "selector": selector,
        "ports": [{"name": PORT, "port": spec.executors.port, "targetPort": _port(template, spec.executors.port)}],
    }
    # Pods that are not ready may be evicted: they would keep a node from being drained.
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": selector}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    stateful_set = {
        "serviceName": pool_name(owner.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "ordinals": {"start": 1},
        "selector": {"matchLabels": selector},
        "template": template,
    }
    return PoolBodies(
        _body(owner, "v1", "Service", service),
        _body(owner, "policy/v1", "PodDisruptionBudget", budget),
        _body(owner, "apps/v1", "StatefulSet", stateful_set, {ANNOTATION_TEMPLATE_HASH: digest}),
        digest,
    )


def pod_template(owner: Owner, spec: QueueWorkerSpec) -> Body:
    """The template of the spec with what it leaves open. What it says itself stays as it is."""
    given = spec.executors.template
    assert given is not None
    template: Body = {"metadata": copy.deepcopy(given.metadata), "spec": copy.deepcopy(given.spec)}
    metadata, pod = template["metadata"], template["spec"]
    _add(metadata, "labels", {LABEL_QUEUEWORKER: owner.name})
    pod.setdefault("automountServiceAccountToken", False)
    pod.setdefault("terminationGracePeriodSeconds", spec.routing.task_timeout_seconds + GRACE_MARGIN_SECONDS)
    _complete(_executor(pod["containers"]), spec, pod["terminationGracePeriodSeconds"])
    return template


def template_hash(template: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def _executor(containers: list[Body]) -> Body:
    """The container that has a port with the name http, else the first one."""
    return next((c for c in containers if _has_port(c, PORT)), containers[0])


def _complete(container: Body, spec: QueueWorkerSpec, grace: Any) -> None:
    number = spec.executors.port
    if not _has_port(container, PORT) and all(
        port.get("containerPort") != number for port in _items(container, "ports")
    ):
        _append(container, "ports", {"name": PORT, "containerPort": number})
    if all(variable.get("name") != "EXECUTOR_ID" for variable in _items(container, "env")):
        _append(container, "env", {"name": "EXECUTOR_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    check = spec.executors.health_check
    probe = {
        "httpGet": {"path": check.path, "port": _container_port(container, number)},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": check.timeout_seconds,
    }
    container.setdefault("readinessProbe", probe)
    seconds = _sleep_seconds(spec.routing.task_timeout_seconds, grace)
    if seconds:
        _add(container, "lifecycle", {"preStop": {"sleep": {"seconds": seconds}}}, over=False)


def _has_port(container: Body, name: str) -> bool:
    return any(port.get("name") == name for port in _items(container, "ports"))


# The API server checks the template's parts. Parts that are not what they should be stay as they are until then.


def _items(container: Body, field: str) -> list[Body]:
    found = container.get(field)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _append(container: Body, field: str, item: Body) -> None:
    found = container.get(field) or []
    if isinstance(found, list):
        container[field] = [*found, item]


def _add(node: Body, field: str, values: Body, *, over: bool = True) -> None:
    """Add the values to a map. `over`: they win over those that are there."""
    found = node.get(field) or {}
    if isinstance(found, dict):
        node[field] = found | values if over else values | found


def _sleep_seconds(timeout: int, grace: Any) -> int:
    """The API server refuses a sleep that is not shorter than the grace. 0: there is no time for one."""
    return max(0, min(timeout, grace - 1)) if isinstance(grace, int) else 0


def _port(template: Body, number: int) -> str | int:
    return _container_port(_executor(template["spec"]["containers"]), number)


def _container_port(container: Body, number: int) -> str | int:
    return PORT if _has_port(container, PORT) else number


def _body(owner: Owner, api_version: str, kind: str, spec: Body, annotations: Mapping[str, str] | None = None) -> Body:
    metadata: Body = {
        "namespace": owner.namespace,
        "name": pool_name(owner.name),
        "labels": {LABEL_QUEUEWORKER: owner.name, "app.kubernetes.io/managed-by": FIELD_MANAGER},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


# --- whom an object belongs to


def owner_of(body: Mapping[str, Any]) -> str:
    """The uid of its controller; empty if it has none."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("uid")) for owner in owners if owner.get("controller")), "")


def generation_of(body: Mapping[str, Any]) -> int:
    """It grows with each change of the object's spec; a Service has none."""
    return body["metadata"].get("generation") or 0


def meddlers(body: Mapping[str, Any]) -> list[str]:
    """Who else has written fields of the object's spec, by their field managers. Who only removed some is not known."""
    entries = body["metadata"].get("managedFields") or ()
    return sorted({entry.get("manager") or "unknown" for entry in entries if _meddles(entry)})


def taken_over(body: Mapping[str, Any]) -> list[Body]:
    """The object's managedFields with all of the spec as ours: the next apply removes from it what we did not ask for.

    client-go does the same when an object moves to server-side apply (`csaupgrade`), as ours does after its creation.
    Others keep their fields apart from the spec, such as labels and annotations.
    """
    entries = copy.deepcopy(list(body["metadata"].get("managedFields") or ()))
    ours = next((entry for entry in entries if _is_ours(entry) and entry.get("operation") == APPLY), None)
    if ours is None:
        ours = {"manager": FIELD_MANAGER, "operation": APPLY, "apiVersion": body["apiVersion"]}
        ours |= {"fieldsType": "FieldsV1", "fieldsV1": {}}
        entries.append(ours)
    for entry in entries:
        if entry is not ours and _is_ours(entry):
            _merge(ours["fieldsV1"], entry.pop("fieldsV1", {}))
        elif _meddles(entry):
            _merge(ours["fieldsV1"], {"f:spec": entry["fieldsV1"].pop("f:spec")})
    return [entry for entry in entries if entry.get("fieldsV1")]


def _is_ours(entry: Mapping[str, Any]) -> bool:
    """Of our applies, or of our creation."""
    return entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")


def _meddles(entry: Mapping[str, Any]) -> bool:
    return not _is_ours(entry) and entry.get("subresource") != STATUS and "f:spec" in (entry.get("fieldsV1") or {})


def _merge(into: Body, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        _merge(into.setdefault(key, {}), value)
