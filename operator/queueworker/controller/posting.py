"""Posts Kubernetes Events. Nobody waits for it: what cannot be posted is dropped."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import UNREACHABLE, reason_of
from queueworker.resource.names import API_VERSION, KIND

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.events import ObjectEvent

log = logging.getLogger(__name__)

COMPONENT = "queueworker-operator"
MAX_WAITING = 500
"""Events that wait to be posted; what comes while there are so many is dropped."""
MAX_REMEMBERED = 2000
"""Events that are counted on instead of being posted anew."""
MAX_MESSAGE = 1000
TRIES = 2
"""For an Event that the API server did not answer in time."""


class ObjectName(NamedTuple):
    """The object that an Event is about."""

    namespace: str
    name: str
    uid: str


_Key = tuple[ObjectName, str, str]


@dataclass(slots=True)
class _Counted:
    name: str
    first: str
    """When it happened first."""
    last: str = ""
    message: str = ""
    count: int = 0
    posted: bool = False


class EventPoster:
    """Posts one Event for each object, type and reason; when it happens again, that Event is counted up and gets the
    newest message.
    """

    def __init__(
        self, cluster: Cluster, identity: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cluster = cluster
        self._identity = identity
        self._now = now
        self._waiting: OrderedDict[_Key, None] = OrderedDict()
        self._known: OrderedDict[_Key, _Counted] = OrderedDict()
        self._wake = asyncio.Event()
        self._refused = False
        """The log has it that the right is missing."""

    def post(self, about: ObjectName, event: ObjectEvent) -> None:
        """Post it soon."""
        key = (about, event.type, event.reason)
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        known = self._known.setdefault(key, _Counted(self._name_of(key), now))
        self._known.move_to_end(key)
        known.count, known.last, known.message = known.count + 1, now, event.message[:MAX_MESSAGE]
        if key in self._waiting or len(self._waiting) < MAX_WAITING:
            self._waiting[key] = None
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        self._wake.set()

    async def run(self) -> None:
        """Post what waits, one after the other, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                key, _ = self._waiting.popitem(last=False)
                counted = self._known.get(key)
                if counted is not None:
                    await self._post(key, counted)

    async def _post(self, key: _Key, counted: _Counted) -> None:
        about = key[0]
        for _ in range(TRIES):
            try:
                await self._cluster.write_event(about.namespace, self._body(key, counted), create=not counted.posted)
            except ApiException as error:
                # 403: the namespace is being deleted, or the right is missing. 404: the Event was too old, and is gone.
                # 409: it was posted, and the answer was lost.
                counted.posted = error.status == 409
                problem: Exception = error
                self._name_the_right(error)
                if error.status not in {404, 409}:
                    break
            except UNREACHABLE as error:
                problem = error
            else:
                counted.posted = True
                return
        log.debug("an Event of %s/%s was not posted: %s", about.namespace, about.name, reason_of(problem))

    def _name_the_right(self, error: ApiException) -> None:
        if error.status == 403 and "NamespaceTerminating" not in str(error.body) and not self._refused:
            self._refused = True
            log.warning("Kubernetes Events cannot be posted: %s: allow create and patch on events", reason_of(error))

    def _body(self, key: _Key, counted: _Counted) -> dict[str, Any]:
        about, kind, reason = key
        return {
            "metadata": {"namespace": about.namespace, "name": counted.name},
            "involvedObject": {"apiVersion": API_VERSION, "kind": KIND, **about._asdict()},
            "type": kind,
            "reason": reason,
            "message": counted.message,
            "count": counted.count,
            "firstTimestamp": counted.first,
            "lastTimestamp": counted.last,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._identity,
        }

    def _name_of(self, key: _Key) -> str:
        """The same for the same Event of this process, and no other's."""
        about, kind, reason = key
        text = f"{self._identity}\n{about.uid}\n{kind}\n{reason}"
        return f"{about.name[:200]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
