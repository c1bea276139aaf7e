"""What the operator knows at this moment: its HTTP API, through the API server's proxy or at a URL."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from queueworker.cli.plugin.api import REQUEST_SECONDS, read, why
from queueworker.cli.plugin.problems import Problem

if TYPE_CHECKING:
    from queueworker.cli.plugin.api import Api

DEFAULT_OPERATOR = "queueworker-system/queueworker-operator"
PORT_NAME = "http"
STANDBY_TRIES = 6
"""The Service chooses a replica at random, and only the leader knows. Two replicas: 1 in 64 never meets the leader."""
STANDBY_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Live:
    """One answer of the operator's `/status`."""

    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The QueueWorkers that it routes for, by namespace/name."""
    history: dict[str, list[float | None]] = field(default_factory=dict)
    """Tasks a minute of each QueueWorker, every 5 s, the latest last; None is a gap."""
    replica: str = ""
    """The leader, which answered."""
    version: str = ""
    """The operator's version; empty if it does not say."""
    problem: str = ""
    """Why there is no answer of a leader, and what to do; empty if there is one."""
    leaderless: str = ""
    """By the Lease: why nobody routes; empty if somebody leads, or the Lease may not be read."""


class Operator:
    """The operator's HTTP API. `where` is NAMESPACE/SERVICE or a URL; empty for the Service of the manifests."""

    def __init__(self, api: Api, where: str) -> None:
        self._api = api
        self.where = where or DEFAULT_OPERATOR
        if "://" not in self.where and len(self.where.split("/")) != 2:
            raise Problem(f"--operator {where}: give NAMESPACE/SERVICE, or a URL such as http://127.0.0.1:8084")

    @property
    def namespace(self) -> str:
        """The namespace of its Service; empty if it is a URL."""
        return "" if "://" in self.where else self.where.partition("/")[0]

    async def live(self) -> Live:
        """Never fails: the problem is in the result."""
        for _ in range(STANDBY_TRIES):
            try:
                answer, lines, overview = await asyncio.gather(
                    self.get("/status"), self._optional("/api/sparklines"), self._optional("/api/overview")
                )
            except Problem as problem:
                return Live(problem=str(problem))
            if answer.get("leading"):
                return _live(answer, lines, overview)
            await asyncio.sleep(STANDBY_PAUSE_SECONDS)
        leader = f"{answer.get('leader')} leads, and is not ready" if answer.get("leader") else "no replica leads"
        return Live(problem=f"the operator's replicas stand by: {leader}", version=str(overview.get("version") or ""))

    async def _optional(self, path: str) -> dict[str, Any]:
        """Empty if the operator has no such answer: it may be older."""
        try:
            return await self.get(path)
        except Problem:
            return {}

    async def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET. Raises Problem."""
        status, body = await (self._from_url(path) if "://" in self.where else self._from_proxy(path))
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Problem(f"the operator {self.where} answered {status} and no JSON: check --operator")
        if status == 200:
            return found
        raise Problem(self._refusal(status, found))

    def _refusal(self, status: int, found: dict[str, Any]) -> str:
        if "detail" in found:
            return str(found["detail"])
        message = str(found.get("message") or "")
        if status == 404:
            return f"there is no Service {self.where}: set --operator to NAMESPACE/SERVICE of the operator"
        if status == 403:
            return f"you may not ask the operator: allow `get services/proxy` in the namespace {self.namespace}"
        if "no endpoints" in message:
            return f"no replica of the operator {self.where} is ready: `kubectl get pods -n {self.namespace}`"
        return f"the operator {self.where} cannot be asked: {message or status}"

    async def _from_proxy(self, path: str) -> tuple[int, bytes]:
        namespace, _, service = self.where.partition("/")
        proxy = f"/api/v1/namespaces/{namespace}/services/{service}:{PORT_NAME}/proxy"
        return await self._api.call("GET", proxy + path)

    async def _from_url(self, path: str) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self.where.rstrip("/") + path) as answer,
            ):
                return answer.status, await read(answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Problem(f"the operator {self.where} {why(error)}; check --operator") from error


def _live(answer: dict[str, Any], lines: dict[str, Any], overview: dict[str, Any]) -> Live:
    workers = {str(worker["name"]): worker for worker in answer.get("queue_workers") or [] if "name" in worker}
    history = {str(name): series[0] for name, series in (lines.get("objects") or {}).items() if series}
    return Live(workers, history, str(answer.get("leader") or ""), str(overview.get("version") or ""))
