"""The Kubernetes Event that a change of status causes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from queueworker.resource.reasons import ConditionType, Reason

if TYPE_CHECKING:
    from queueworker.resource.status import Condition, QueueWorkerStatus


class ObjectEvent(NamedTuple):
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def event_for(before: QueueWorkerStatus, after: QueueWorkerStatus) -> ObjectEvent | None:
    """The Event of a change of Ready, in its status or its reason. The other conditions are in the status for whoever
    looks; a single executor that comes and goes must not fill the list of Events.
    """
    old, new = _ready(before), _ready(after)
    if new is None or new.status == "Unknown" or new.reason == Reason.STARTING:
        return None
    if old is not None and (old.status, old.reason) == (new.status, new.reason):
        return None
    expected = new.status == "True" or new.reason == Reason.DRAINING
    message = new.message or f"{new.type} is {new.status}"
    return ObjectEvent("Normal" if expected else "Warning", str(new.reason), message)


def _ready(status: QueueWorkerStatus) -> Condition | None:
    return next((c for c in status.conditions if c.type == ConditionType.READY), None)
