"""The finalizer: an object that has it is not removed before its router has drained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueworker.controller.cluster import ObjectGone, StalePatch
from queueworker.resource.names import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.controller.cluster import Cluster

Patch = list[dict[str, Any]]


def is_deleted(body: Mapping[str, Any]) -> bool:
    """Whether somebody has asked for the object's deletion."""
    return bool(body["metadata"].get("deletionTimestamp"))


def is_held(body: Mapping[str, Any]) -> bool:
    """Whether our finalizer is there."""
    return FINALIZER in (body["metadata"].get("finalizers") or ())


def orphans(body: Mapping[str, Any]) -> bool:
    """Whether what belongs to the object is to stay (`kubectl delete --cascade=orphan`)."""
    return "orphan" in (body["metadata"].get("finalizers") or ())


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


class Hold:
    """Our finalizer on one object."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, uid: str | None) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._uid = uid

    async def set(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """One try. Returns the object as it is now. Raises `ObjectGone` or one of `cluster.FAILED`."""
        return body if is_held(body) or is_deleted(body) else await self._patched(body, holding(body))

    async def remove(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """One try. Returns the object as it is now. Raises `ObjectGone` or one of `cluster.FAILED`."""
        return await self._patched(body, releasing(body)) if is_held(body) else body

    async def _patched(self, known: Mapping[str, Any], patch: Patch) -> Mapping[str, Any]:
        version = known["metadata"].get("resourceVersion")
        try:
            return await self._cluster.patch_object(self._namespace, self._name, patch)
        except StalePatch as stale:
            body = await self._cluster.read_object(self._namespace, self._name)
            if body is None or body["metadata"].get("uid") != self._uid:
                raise ObjectGone(self._name) from None
            if stale.__cause__ is not None and body["metadata"].get("resourceVersion") == version:
                raise stale.__cause__ from None  # the object is as we know it: the patch itself is refused
            return body
