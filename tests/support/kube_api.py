"""An API server over HTTP, by kmock, that has one QueueWorker and one Secret, and the kubeconfig that leads to it."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import kmock

if TYPE_CHECKING:
    from pathlib import Path

NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "message": "not found"}


class KubeApi:
    """What it does not have is not found. `asked` counts all requests, also those."""

    def __init__(
        self, name: str = "", worker: dict[str, Any] | None = None, secret: dict[str, Any] | None = None
    ) -> None:
        self._api = kmock.RawHandler()
        self._server = kmock.Server(self._api)
        self._open = AsyncExitStack()
        if secret is not None:
            self._api["fetch", kmock.resource("v1/secrets")] << ({"kind": "Secret"} | secret)
        named: Any = kmock.params({"fieldSelector": f"metadata.name={name}"})
        self._api["list", kmock.resource("queueworkers"), named] << {"kind": "QueueWorkerList", "items": [worker]}
        self._api["list", kmock.resource("queueworkers")] << {"kind": "QueueWorkerList", "items": []}
        self._api.fallback << (404, NOT_FOUND)

    @property
    def asked(self) -> int:
        return len(self._api)

    @property
    def url(self) -> str:
        return str(self._server.url)

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._api)
        await self._open.enter_async_context(self._server)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def kubeconfig(self, folder: Path) -> str:
        """Writes the file, and returns its path."""
        config = {
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
            "current-context": "c",
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)
