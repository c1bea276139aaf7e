"""What a QueueWorker's conditions come to: one level, one word, one sentence, and what to do. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from queueworker.resource.reasons import ConditionType, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.web.source import ConditionView, ObjectView


class Level(StrEnum):
    """ERROR: it does not do what it should. WARNING: it does, and something is wrong. OFF: it should do nothing."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"
    OFF = "off"


class State(NamedTuple):
    level: Level
    reason: str
    why: str
    """Empty when all is well."""


DEGRADED = "Degraded"
_TRANSIENT = {Reason.STARTING, Reason.DRAINING}
_OFF = {Reason.SUSPENDED, Reason.STANDBY}
_ADVICE: dict[str, str] = {
    Reason.NO_EXECUTORS: "Check that the executors run and that the operator can reach them. Tasks wait, or fail after "
    "the grace, as executors.whenUnavailable says.",
    Reason.QUEUE_UNREACHABLE: "Check queue.url, the network and the queue itself. It is tried again for ever, every 5 "
    "to 30 s; results wait to be reported.",
    Reason.INVALID_SPEC: "Correct the spec. The last valid one, if there was one, stays in use.",
    Reason.RECONCILE_FAILED: "Read the operator's log. It is tried again.",
    Reason.STALLED: "Read the router's log, and restart it: nothing is lost.",
    Reason.SOME_UNHEALTHY: "The healthy executors go on. Look at the failures of the others below.",
    Reason.NONE_HEALTHY: "Check that the executors run and that the operator can reach them.",
    Reason.DISCOVERY_FAILED: "Check the Service, its selector and its port, and the operator's right to list "
    "EndpointSlices.",
    Reason.CONNECTION_FAILED: "Check the URL, the network and the peer itself. It is tried again.",
    Reason.AUTHENTICATION_FAILED: "Correct the key or the password in the Secret. It is read again within a minute.",
    Reason.SECRET_NOT_FOUND: "Create the Secret with that key, or correct the reference.",
    Reason.INVALID_SECRET: "Correct the value in the Secret.",
    Reason.SECRET_READ_FAILED: "Check the operator's right to get this Secret. It is tried again.",
    Reason.POD_NOT_READY: "Look at that pod with kubectl describe. A corrected template goes to it first.",
    Reason.INVALID_TEMPLATE: "Correct executors.template.",
    Reason.NOT_PERMITTED: "Allow managed pools at the installation, or change what refuses.",
    Reason.INVALID_ANSWER: "Something else than the queue answers at that URL: check for an ingress or a login page.",
}


def state_of(view: ObjectView) -> State:
    """ERROR if Ready is False for a reason that does not pass by itself; WARNING if another condition is not well."""
    ready = next((c for c in view.conditions if c.type == ConditionType.READY), None)
    if ready is None:
        return State(Level.WARNING, Reason.STARTING, "")
    if ready.status != "True":
        return State(Level.WARNING if ready.reason in _TRANSIENT else Level.ERROR, ready.reason, ready.message)
    if ready.reason in _OFF:
        return State(Level.OFF, ready.reason, ready.message)
    troubles = list(_troubles(view))
    if troubles:
        return State(Level.WARNING, DEGRADED, troubles[0].message or troubles[0].reason)
    return State(Level.OK, ready.reason, "")


def advice(view: ObjectView) -> list[tuple[ConditionView, str]]:
    """Each condition that is not well, with what to do about it."""
    ready = [c for c in view.conditions if c.type == ConditionType.READY and c.status == "False"]
    return [(c, _ADVICE.get(c.reason, "")) for c in (*ready, *_troubles(view)) if c.reason not in _TRANSIENT]


def _troubles(view: ObjectView) -> Iterable[ConditionView]:
    others = (c for c in view.conditions if c.type != ConditionType.READY)
    return (c for c in others if c.status == "False" or c.reason == Reason.SOME_UNHEALTHY)
