"""Two leaders and one object: what the one that drains hands to the one that leads, and when a rival is one too many.

While a router drains, its successor counts the slots that it still holds as taken (`ExecutorPool.set_rival_slots`).
Tasks that end meanwhile are counted by the old router, but the new leader writes the status: the old one leaves its
counts in an annotation of the object, which the new one adds to its own and removes.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from queueworker.controller.cluster import FAILED, ObjectGone, StalePatch, reason_of
from queueworker.controller.events import ObjectEvent
from queueworker.controller.status import Totals
from queueworker.resource.names import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queueworker.controller.cluster import Cluster
    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.snapshot import Snapshot

log = logging.getLogger(__name__)

PREFIX = f"handed-over.{GROUP}/"
PATIENCE_SECONDS = 30.0
"""A rival that lives longer than the object's `drainSeconds` and this does not drain."""


def handing_over(identity: str, counts: Totals) -> dict[str, Any]:
    """A merge patch that leaves the counts to the next leader. The end of an identity is unique."""
    value = [counts.completed, counts.failed, counts.retried, counts.recovered]
    name = re.sub(r"[^A-Za-z0-9]", "", identity)[-40:]
    return {"metadata": {"annotations": {PREFIX + name: json.dumps(value)}}}


async def leave(cluster: Cluster, namespace: str, name: str, identity: str, counts: Totals) -> None:
    """Another leader writes the status by now: leave it what was counted since our last status."""
    if counts == Totals():
        return
    try:
        await cluster.patch_object(namespace, name, handing_over(identity, counts))
    except (ObjectGone, StalePatch, *FAILED) as error:
        log.warning("%s/%s: the last counts could not be handed over: %s", namespace, name, reason_of(error))


def handed_over(body: Mapping[str, Any]) -> dict[str, Totals]:
    """The counts that earlier leaders left, by the name of the annotation."""
    annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    return {name: _counts(value) for name, value in annotations.items() if name.startswith(PREFIX)}


def taking(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A JSON patch that removes the annotation, once."""
    path = "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1")
    return [
        {"op": "test", "path": path, "value": body["metadata"]["annotations"][name]},
        {"op": "remove", "path": path},
    ]


def _counts(value: str) -> Totals:
    """Nothing, if it is not ours."""
    try:
        numbers = json.loads(value)
        if isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 53 for n in numbers):
            return Totals(*numbers)
    except (ValueError, TypeError, RecursionError):
        pass
    return Totals()


class RivalAlarm:
    """Notices another router of the object that does not go away: two operators watch the object."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = False

    def look(self, rivals: int, drain_seconds: float, now: float) -> bool:
        """Whether it is time to say so: once, until it is over."""
        if not rivals:
            self._since, self._told = None, False
            return False
        self._since = now if self._since is None else self._since
        due = not self._told and now - self._since > drain_seconds + PATIENCE_SECONDS
        self._told = self._told or due
        return due


def tell_of_rivals(
    alarm: RivalAlarm,
    group: str,
    spec: QueueWorkerSpec | None,
    snapshot: Snapshot | None,
    announce: Callable[[ObjectEvent], None],
) -> None:
    """Warn of another router of the object, in the log and by an Event, when it is time to."""
    if snapshot is None or spec is None:
        return
    if alarm.look(snapshot.rivals, spec.routing.drain_seconds, time.monotonic()):
        text = f"{snapshot.rivals} other routers route for this object: do two operators watch its namespace?"
        log.warning("%s: %s", group, text)
        announce(ObjectEvent("Warning", "RivalRouter", text))
