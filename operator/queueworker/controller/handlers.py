"""kopf: one operator for each kind and namespace. Its handlers pass the watch's events on, and decide nothing.

Runners do not depend on it. It may end, because a namespace is gone or a right was taken away, and be started again
(see `watches`). Finalizer, status and Kubernetes Events are not kopf's either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import kopf

if TYPE_CHECKING:
    from collections.abc import Callable

    from yarl import URL

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.kinds import Kind

    Heard = Callable[[str | None, dict[str, Any]], None]
    """Gets a watch event: its type (None for an object of the first list) and the object."""

RECONNECT_SECONDS = 1.0
"""Shortest time between two requests for a watch, and between two logins."""
WATCH_SECONDS = 60
"""Each watch ends after so long, and the next one begins where it ended: what a connection that fell silent has kept
back arrives then."""
WATCH_MARGIN_SECONDS = 15
"""After so much more we end it: the connection is silent."""
QUICK_ENDS = 3
"""So many watches in a row that end within RECONNECT_SECONDS are none."""
# kopf reports each failed request with a stack trace. `watches` says once what is wrong, and once when it is over.
logging.getLogger("kopf").setLevel(logging.CRITICAL)
# A handler that raised.
logging.getLogger("kopf.objects").setLevel(logging.WARNING)


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf would copy each object for a diff that nobody asks for, and read the annotation in which operators made with
    it keep the last state: where that is no JSON, the event would be dropped.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing: there is no handler whose state could be kept."""


class _EveryTask(frozenset["asyncio.Task[Any]"]):
    """kopf cancels at its end all tasks of the loop that it was not told to ignore: ours are none of its business."""

    def __contains__(self, _: object) -> bool:
        return True


class _Pace:
    """Called before each request. kopf asks for the next watch at once when one has ended or cannot be had, and would
    do so thousands of times a second. Raises ConnectionError when that goes on.

    `on_relist` is called when kopf lists the objects once more: the API server has forgotten the events since the last
    one that kopf saw (410), and kopf says nothing of objects that are gone.
    """

    def __init__(self, plural: str, on_relist: Callable[[], None]) -> None:
        self._list = f"/{plural}"
        self._on_relist = on_relist
        self._lists = 0
        self._last = self._last_login = float("-inf")
        self._quick = 0

    async def __call__(self, _session: Any, _context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        if "watch" not in request.url.query:
            self._see_list(request.url)
            return
        since = time.monotonic() - self._last
        self._quick = self._quick + 1 if since < RECONNECT_SECONDS else 0
        if self._quick >= QUICK_ENDS:
            raise ConnectionError("each watch ends as soon as it begins")
        await asyncio.sleep(max(0.0, RECONNECT_SECONDS - since))
        self._last = time.monotonic()

    async def login(self) -> None:
        """Called before each login: kopf makes one after each 401, and then asks again at once."""
        await asyncio.sleep(max(0.0, RECONNECT_SECONDS - (time.monotonic() - self._last_login)))
        self._last_login = time.monotonic()

    def _see_list(self, url: URL) -> None:
        if url.path.endswith(self._list) and "continue" not in url.query:
            self._lists += 1
            if self._lists > 1:
                self._on_relist()


def _paced(access: kopf.ConnectionInfo, pace: _Pace) -> kopf.AiohttpSession:
    """What kopf would make of these credentials by itself, with a pace."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(pace)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=access.as_ssl_context()),
        headers=access.as_http_headers(),
        proxy=access.proxy_url,
        trace_configs=[tracing],
    )
    return kopf.AiohttpSession(server=access.server, aiohttp_session=session)


def settings(kind: Kind) -> kopf.OperatorSettings:
    """Settings of kopf, each with its reason."""
    made = kopf.OperatorSettings()
    if kind.label:
        made.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.label
    made.scanning.disabled = True  # no watch on CRDs and namespaces, so fewer permissions
    made.persistence.finalizer = "kopf.dev/unused"  # kopf removes the one named here, because no handler asks for it
    made.persistence.diffbase_storage = _NoDiffs()
    made.posting.enabled = False
    made.watching.server_timeout = WATCH_SECONDS
    made.watching.client_timeout = WATCH_SECONDS + WATCH_MARGIN_SECONDS
    made.watching.reconnect_backoff = RECONNECT_SECONDS
    made.networking.request_timeout = 30
    made.networking.error_backoffs = ()  # `watches` tries again
    return made


async def serve(
    kind: Kind,
    namespace: str,
    cluster: Cluster,
    heard: Heard,
    on_relist: Callable[[], None],
    claim_signals: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Run kopf until `stop` is set. Raises what ended it, if it ended by itself.

    `on_relist` is called when events may have been missed: of objects that are gone by now, nothing is heard. kopf
    installs signal handlers when it starts. `claim_signals` is called afterwards to replace them.
    """
    registry = kopf.OperatorRegistry()
    _register(registry, kind, cluster, heard, _Pace(kind.plural, on_relist))
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings(kind),
        namespaces=[namespace] if namespace else [],
        clusterwide=not namespace,
        standalone=True,
        stop_flag=stop,
    )
    claim_signals()
    try:
        await kopf.run_tasks(tasks, ignored=_EveryTask())
    finally:
        stop.set()  # one of kopf's tasks waits for nothing else


def _register(registry: kopf.OperatorRegistry, kind: Kind, cluster: Cluster, heard: Heard, pace: _Pace) -> None:
    labels = {kind.label: kopf.PRESENT} if kind.label else None

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        await pace.login()
        return _paced(await cluster.connection(), pace)

    @kopf.on.event(kind.group, kind.version, kind.plural, labels=labels, registry=registry)
    async def event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf passes it by this name
        heard(type, dict(body))
