"""The Kubernetes Events that a change of status causes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from queueworker.resource.reasons import ConditionType, Reason

if TYPE_CHECKING:
    from queueworker.resource.status import Condition, QueueWorkerStatus


class ObjectEvent(NamedTuple):
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def events_for(before: QueueWorkerStatus, after: QueueWorkerStatus) -> list[ObjectEvent]:
    """One Event for each condition whose status or reason changed, if the change matters to people."""
    known = {condition.type: condition for condition in before.conditions}
    return [_event(condition) for condition in after.conditions if _matters(known.get(condition.type), condition)]


def _matters(old: Condition | None, new: Condition) -> bool:
    if new.status == "Unknown" or new.reason == Reason.STARTING:
        return False
    if old is not None and (old.status, old.reason) == (new.status, new.reason):
        return False
    # The Event of Ready says that all is well from the start; the other conditions need not repeat it.
    first = old is None or old.status == "Unknown"
    return not (_good(new) and first) or new.type == ConditionType.READY


def _event(condition: Condition) -> ObjectEvent:
    good = _good(condition)
    if condition.type == ConditionType.READY:
        reason = str(condition.reason)
    else:
        reason = str(condition.type) + ("" if good else str(condition.reason))
    expected = good or condition.reason == Reason.DRAINING
    message = condition.message or f"{condition.type} is {condition.status}"
    return ObjectEvent("Normal" if expected else "Warning", reason, message)


def _good(condition: Condition) -> bool:
    return condition.status == "True" and condition.reason != Reason.SOME_UNHEALTHY
