"""An API server in memory: Secrets to read, the statuses that were written, and the objects of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import Cluster, SecretUnavailable
from queueworker.resource.names import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queueworker.controller.kinds import Kind
    from queueworker.resource.spec import SecretKeyRef


class FakeCluster(Cluster):
    """`error` is raised by every call while it is set."""

    def __init__(self, **secrets: str) -> None:
        super().__init__(lambda: None)
        self.secrets = secrets
        self.reads = 0
        self.secret_errors: list[Exception] = []
        """What the next readings of Secrets raise."""
        self.statuses: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.patches: list[Any] = []
        """The patches of objects, apart from their status."""
        self.patch_errors: list[Exception] = []
        """What the next patches raise."""
        self.found: dict[str, Any] | None = None
        """The object, as it is read."""
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        """What was applied, by kind and name."""
        self.requests: list[tuple[str, str, str, Any]] = []
        """The changes of objects of a pool: method, kind, name and body."""
        self.appear: dict[tuple[str, str], dict[str, Any]] = {}
        """Objects that somebody else creates just before we do, by kind and name."""
        self.refusals: dict[str, Exception] = {}
        """What a change of an object raises, by its kind or name."""

    async def secret(self, namespace: str, ref: SecretKeyRef) -> str:
        self.reads += 1
        if self.error is not None:
            raise self.error
        if self.secret_errors:
            raise self.secret_errors.pop(0)
        if ref.name not in self.secrets:
            raise SecretUnavailable(f"Secret {namespace}/{ref.name} does not exist")
        return self.secrets[ref.name]

    async def patch_status(self, namespace: str, name: str, status: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.statuses.append(status)

    async def patch_object(
        self, namespace: str, name: str, patch: Sequence[dict[str, Any]] | dict[str, Any]
    ) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.patches.append(patch if isinstance(patch, dict) else list(patch))
        if self.patch_errors:
            raise self.patch_errors.pop(0)
        removes = not isinstance(patch, dict) and any(op["path"].startswith("/metadata/finalizers/") for op in patch)
        left = [] if removes else [FINALIZER]
        return {"metadata": {"namespace": namespace, "name": name, "uid": "uid-1", "finalizers": left}}

    async def read_object(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.found

    async def request(
        self,
        method: str,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        body: Any,
        content_type: str,
        query: Mapping[str, str],
    ) -> dict[str, Any]:
        if content_type == "application/json-patch+json":
            return self._take_over(self.objects[kind.name, name]["metadata"], body)
        key = (kind.name, name or body["metadata"]["name"])
        if query.get("dryRun"):
            return {}
        if content_type == "application/merge-patch+json" and not body:
            if key not in self.objects:
                raise ApiException(status=404)
            return self.objects[key]
        self.requests.append((method, *key, body))
        if refusal := self.refusals.get(kind.name) or self.refusals.get(key[1]):
            raise refusal
        if key in self.appear:
            self.objects[key] = self.appear.pop(key)
        if method == "POST" and key in self.objects:
            raise ApiException(status=409, reason="Conflict")
        if method == "DELETE":
            return self.objects.pop(key, {})
        before = self.objects.get(key, {"metadata": {}})
        generation = before["metadata"].get("generation", 0) + (before.get("spec") != body["spec"])
        fields: dict[str, Any] = {"uid": f"uid-{key[1]}", "resourceVersion": "1", "generation": generation}
        self.objects[key] = body | {"metadata": body["metadata"] | fields}
        return self.objects[key]

    def _take_over(self, metadata: dict[str, Any], patch: Sequence[dict[str, Any]]) -> dict[str, Any]:
        values = {op["path"].removeprefix("/metadata/"): op["value"] for op in patch}
        if values["resourceVersion"] != metadata["resourceVersion"]:
            raise ApiException(status=409, reason="Conflict")
        metadata["managedFields"] = values["managedFields"]
        return metadata

    def reasons(self) -> list[str]:
        """The reasons of Ready, as they were written."""
        return [c["reason"] for status in self.statuses for c in status["conditions"] if c["type"] == "Ready"]
