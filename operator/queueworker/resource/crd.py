"""The CustomResourceDefinition, made from the models."""

from __future__ import annotations

from typing import Any

from queueworker.resource import names
from queueworker.resource.model import INT_OR_STRING, rule
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.resource.status import QueueWorkerStatus

_INT32 = 2**31
_READY = ".status.conditions[?(@.type=='Ready')]"

_COLUMNS = [
    ("Ready", "string", f"{_READY}.status", 0, "True if the router does what the spec asks for."),
    ("Status", "string", f"{_READY}.reason", 0, "Reason of the Ready condition."),
    ("Executors", "string", ".status.executors.summary", 0, "Healthy executors and executors in the pool."),
    ("Routed", "integer", ".status.tasks.routed", 0, "Tasks reported to the queue."),
    ("Failed", "integer", ".status.tasks.failed", 0, "Tasks reported as failed."),
    ("Waiting", "integer", ".status.queue.depth", 0, "Tasks waiting in the queue, by its last answer."),
    ("Per-Minute", "integer", ".status.tasks.perMinute", 0, "Tasks reported in the last minute."),
    ("Migration", "string", ".status.migration.phase", 0, "Phase of the migration to Celery."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since the object was created."),
    ("Strategy", "string", ".spec.routing.strategy", 1, "Strategy for the choice of an executor."),
    ("Queue", "string", ".spec.queue.url", 1, "URL of the queue."),
    ("In-Flight", "integer", ".status.tasks.inFlight", 1, "Tasks pulled and not reported yet."),
    ("Message", "string", f"{_READY}.message", 1, "Message of the Ready condition."),
]

# From the API machinery of Kubernetes, shortened.
_API_VERSION = "Group and version of this representation of the object: crucible.dev/v1alpha1."
_KIND = "Kind of the object: QueueWorker."
MAX_NAME = 63
# The name is the value of a label in the scale subresource's selector. An object that has a status was taken earlier,
# and goes on to work.
_NAME_RULE = rule(
    f"self.metadata.name.size() <= {MAX_NAME} || has(self.status)",
    f"metadata.name must have at most {MAX_NAME} characters: it is the value of a label, by which `kubectl scale` and "
    "autoscalers select",
)


def crd() -> dict[str, Any]:
    """The complete object, ready for `kubectl apply`."""
    spec = structural(QueueWorkerSpec.model_json_schema(by_alias=True))
    spec["description"] = "Desired state: a queue, its executors, and the rules for routing tasks."
    status = structural(QueueWorkerStatus.model_json_schema(by_alias=True, mode="validation"), defaults=False)
    status["description"] = "Observed state, written by the operator."
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.executors.count",
                            "statusReplicasPath": ".status.executors.desired",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": text}
                        for name, kind, path, priority, text in _COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "description": "Routes tasks from a legacy HTTP queue to a pool of executors.",
                            "type": "object",
                            "properties": {
                                "apiVersion": {"type": "string", "description": _API_VERSION},
                                "kind": {"type": "string", "description": _KIND},
                                "metadata": {"type": "object"},
                                "spec": spec | {"default": {}},
                                "status": status,
                            },
                            **_NAME_RULE,
                        }
                    },
                }
            ],
        },
    }


def structural(schema: dict[str, Any], *, defaults: bool = True) -> dict[str, Any]:
    """Makes a pydantic JSON schema structural: without references, titles, nulls and `additionalProperties`.

    With `defaults`, every nested object without required fields defaults to `{}`, so that the defaults of its own
    fields apply.
    """
    return _node(schema, schema.get("$defs", {}), defaults)


def _node(node: dict[str, Any], known: dict[str, Any], defaults: bool) -> dict[str, Any]:
    merged = dict(node)
    while True:
        if "$ref" in merged:
            target = known[merged.pop("$ref").rsplit("/", 1)[1]]
            merged = target | merged
        elif "anyOf" in merged:
            (some,) = [branch for branch in merged.pop("anyOf") if branch.get("type") != "null"]
            merged = some | merged
        elif "allOf" in merged:
            (some,) = merged.pop("allOf")
            merged = some | merged
        else:
            break
    for key in ("title", "$defs", "additionalProperties"):
        merged.pop(key, None)
    default = merged.pop("default", None)
    if merged.get("type") == "object":
        merged["properties"] = {
            name: _node(child, known, defaults) for name, child in merged.get("properties", {}).items()
        }
        if defaults and isinstance(default, dict):
            merged["default"] = {}
    elif defaults and default is not None and merged.get("type") != "array":
        merged["default"] = default
    if merged.get("type") == "array":
        merged["items"] = _node(merged["items"], known, defaults)
        merged.setdefault("x-kubernetes-list-type", "atomic")
    if merged.get("type") == "integer":
        merged.setdefault("format", "int32" if merged.get("maximum", _INT32) < _INT32 else "int64")
    if merged.get("type") == "string" and "enum" not in merged and merged.get("format") != "date-time":
        merged.setdefault("maxLength", 1024)
    if INT_OR_STRING in merged:
        del merged["type"]
    if "const" in merged:
        merged["enum"] = [merged.pop("const")]
    return dict(sorted(merged.items()))
