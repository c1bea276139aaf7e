"""An API server in memory: Secrets to read, and the statuses that were written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueworker.controller.cluster import Cluster, SecretNotFound

if TYPE_CHECKING:
    from queueworker.resource.spec import SecretKeyRef


class FakeCluster(Cluster):
    """`error` is raised by every call while it is set."""

    def __init__(self, **secrets: str) -> None:
        super().__init__(lambda: None)
        self.secrets = secrets
        self.reads = 0
        self.statuses: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def secret(self, namespace: str, ref: SecretKeyRef) -> str:
        self.reads += 1
        if self.error is not None:
            raise self.error
        if ref.name not in self.secrets:
            raise SecretNotFound(f"Secret {namespace}/{ref.name} does not exist")
        return self.secrets[ref.name]

    async def patch_status(self, namespace: str, name: str, status: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.statuses.append(status)

    def reasons(self) -> list[str]:
        """The reasons of Ready, as they were written."""
        return [c["reason"] for status in self.statuses for c in status["conditions"] if c["type"] == "Ready"]
