"""An API server over HTTP that has one QueueWorker and one Secret, and the kubeconfig that leads to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.stubs import Server

if TYPE_CHECKING:
    from pathlib import Path


class KubeApi(Server):
    """`asked` counts all requests, also those for what it does not have."""

    def __init__(
        self, name: str = "", worker: dict[str, Any] | None = None, secret: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.asked = 0
        self._name, self._worker, self._secret = name, worker, secret

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/{path:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if "/secrets/" in request.path and self._secret is not None:
            return web.json_response({"kind": "Secret"} | self._secret)
        if request.path.endswith("/queueworkers"):
            found = request.query.get("fieldSelector") == f"metadata.name={self._name}"
            return web.json_response({"kind": "QueueWorkerList", "items": [self._worker] if found else []})
        return web.json_response({"message": "not found"}, status=404)

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
