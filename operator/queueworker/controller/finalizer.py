"""The finalizer: an object that has it is not removed before its router has drained. Patches as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueworker.resource.names import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Mapping

Patch = list[dict[str, Any]]


def is_deleted(body: Mapping[str, Any]) -> bool:
    """Whether somebody has asked for the object's deletion."""
    return bool(body["metadata"].get("deletionTimestamp"))


def is_held(body: Mapping[str, Any]) -> bool:
    """Whether our finalizer is there."""
    return FINALIZER in (body["metadata"].get("finalizers") or ())


def holding(body: Mapping[str, Any]) -> Patch:
    """A JSON patch that adds our finalizer, if the object is still as we know it."""
    metadata = body["metadata"]
    known = metadata.get("finalizers") or []
    return [
        {"op": "test", "path": "/metadata/uid", "value": metadata.get("uid")},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.get("resourceVersion")},
        {"op": "add", "path": "/metadata/finalizers", "value": [*known, FINALIZER]},
    ]


def releasing(body: Mapping[str, Any]) -> Patch:
    """A JSON patch that removes our finalizer from where we saw it, and leaves those of others."""
    metadata = body["metadata"]
    path = f"/metadata/finalizers/{metadata['finalizers'].index(FINALIZER)}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": metadata.get("uid")},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]
