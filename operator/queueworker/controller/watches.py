"""Watches of one kind in one namespace, each on its own feet: what ends one does not touch the others.

kopf brings the events. Our own list, when the watch begins and every few minutes, is the truth: it finds what the watch
has missed. A watch that is refused is named once, and tried again for as long as the term lasts.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import FAILED, reason_of
from queueworker.controller.handlers import serve
from queueworker.routing.aio import cancelled, happens, is_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.handlers import Heard
    from queueworker.controller.kinds import Kind

    Body = dict[str, Any]

log = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
"""Interval of the smallest request that is authorized as the watch is: an open watch does not notice a lost right."""
LIST_PROBES = 12
"""Every so many probes, all objects are listed."""
SETTLE_SECONDS = 2.0
"""A watch that was refused counts as restored after so long without an end."""
RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS = 1.0, 15.0
STOP_SECONDS = 5.0
"""Time for kopf to end."""
REFUSALS = frozenset({401, 403, 404, 405})

Key = tuple[str, str]
"""Namespace and name of an object."""


def key_of(body: Body) -> Key:
    metadata = body["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class Follower(Protocol):
    """Who is told of the objects of one kind."""

    def changed(self, event: str | None, body: Body) -> None:
        """A watch event. `event` is None for an object that was there when the watch began."""

    def listed(self, namespace: str, bodies: Sequence[Body], newer: Collection[Key]) -> None:
        """All objects of the namespace (if it is empty: of the cluster). Of those in `newer` an event has come since
        the list was asked for, which says more.
        """

    def watch_changed(self, namespace: str, problem: str) -> None:
        """The watch is refused, with the problem in a few words, or it works (the problem is empty)."""


class Server(Protocol):
    """Runs a watch until `stop` is set; `handlers.serve` is one."""

    def __call__(
        self,
        kind: Kind,
        namespace: str,
        cluster: Cluster,
        heard: Heard,
        on_relist: Callable[[], None],
        claim_signals: Callable[[], None],
        stop: asyncio.Event,
    ) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """All in seconds, but `list_probes`."""

    probe: float = PROBE_SECONDS
    settle: float = SETTLE_SECONDS
    retry_first: float = RETRY_FIRST_SECONDS
    retry_max: float = RETRY_MAX_SECONDS
    list_probes: int = LIST_PROBES


class Watch:
    """The watch of one kind in one namespace; an empty namespace stands for all."""

    def __init__(
        self,
        kind: Kind,
        namespace: str,
        cluster: Cluster,
        follower: Follower,
        claim_signals: Callable[[], None],
        *,
        times: WatchTimes = WatchTimes(),
        server: Server = serve,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.problem = ""
        """Why it does not work, in a few words; empty if it does."""
        self.listed = False
        """Whether there was a complete list."""
        self.tried = asyncio.Event()
        """Set after the first list, or its refusal."""
        self._cluster = cluster
        self._follower = follower
        self._claim_signals = claim_signals
        self._times = times
        self._server = server
        self._newer: set[Key] = set()
        self._list_due = True
        """Events may have been missed since the last list."""
        self._restart = asyncio.Event()
        self._retry = times.retry_first
        """Seconds until the next try."""

    @property
    def up(self) -> bool:
        return self.listed and not self.problem

    def restart(self) -> None:
        """Begin anew, with a list."""
        self._restart.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._restart.clear()
            try:
                await self._list()
                if await self._cluster.is_served(self.kind):
                    await self._follow()
                else:
                    self._fail("the API server does not serve the kind yet")
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                log.debug("the watch of %s ended", self, exc_info=True)
                self._fail(reason_of(error))
            await happens(self._restart, self._retry)

    async def _follow(self) -> None:
        """Have kopf watch, and check on it; return when it is to begin anew. Raises what ended it."""
        stop = asyncio.Event()
        serving = asyncio.create_task(
            self._serve(stop), name=f"watch of {self.kind.plural} in {self.namespace or 'all namespaces'}"
        )
        restart = asyncio.create_task(self._restart.wait())
        probes = 0
        period = self._times.settle
        try:
            while True:
                await asyncio.wait([serving, restart], timeout=period, return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    await self._cluster.probe(self.kind, self.namespace)  # says in fewer words than kopf what is wrong
                    serving.result()
                    raise ConnectionError("the watch ended")
                if restart.done():
                    return
                probes += 1
                period = self._times.probe
                if probes % self._times.list_probes == 0:
                    self._list_due = True
                await self._check()
        finally:
            await cancelled(restart)
            stop.set()
            await asyncio.wait([serving], timeout=STOP_SECONDS)
            await cancelled(serving)

    async def _serve(self, stop: asyncio.Event) -> None:
        told = (self._heard, self._missed, self._claim_signals)
        await self._server(self.kind, self.namespace, self._cluster, *told, stop)

    async def _check(self) -> None:
        """Raises ApiException if the API server refuses; kopf itself survives all else."""
        try:
            await self._cluster.probe(self.kind, self.namespace)
            if self._list_due:
                await self._list()
        except FAILED as error:
            self._list_due = True
            if isinstance(error, ApiException) and error.status in REFUSALS:
                raise
            self._fail(reason_of(error))
        else:
            self._succeed()

    async def _list(self) -> None:
        self._list_due = False
        self._newer.clear()
        bodies = await self._cluster.list_all(self.kind, self.namespace)
        self._follower.listed(self.namespace, bodies, self._newer)
        self.listed = True
        self.tried.set()

    def _heard(self, event: str | None, body: Body) -> None:
        self._newer.add(key_of(body))
        self._follower.changed(event, body)

    def _missed(self) -> None:
        self._list_due = True

    def _fail(self, problem: str) -> None:
        self._retry = min(2 * self._retry, self._times.retry_max) if self.problem else self._times.retry_first
        if problem != self.problem:
            log.warning("%s cannot be watched: %s%s; it is tried again", self, problem, _advice(problem))
            self.problem = problem
            self._follower.watch_changed(self.namespace, problem)
        self.tried.set()

    def _succeed(self) -> None:
        if self.problem:
            log.warning("%s can be watched again", self)
            self.problem = ""
            self._follower.watch_changed(self.namespace, "")

    def __str__(self) -> str:
        return f"{self.kind.name} in namespace {self.namespace}" if self.namespace else self.kind.name


def _advice(problem: str) -> str:
    status = problem.partition(" ")[0]
    texts = {
        "401": ": check the operator's token",
        "403": ": check that the operator's role is bound",
        "404": ": check that the CRD is installed",
    }
    return texts.get(status, "")
