"""Events as CloudEvents 1.0 in structured mode: one JSON object, whose `data` is the event of the legacy worker."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import msgspec

from queueworker.resource.spec import EventFormat
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED, CHANNEL_FAILED, CHANNEL_RUNNING, Event

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = {
    CHANNEL_COMPLETED: "dev.crucible.evaluation.completed",
    CHANNEL_FAILED: "dev.crucible.evaluation.failed",
    CHANNEL_RUNNING: "dev.crucible.evaluation.running",
}
_encode = msgspec.json.Encoder().encode


class Envelope:
    """Puts the events of one router into the format of its spec. `format` may change at any time."""

    def __init__(
        self,
        group: str,
        format: EventFormat,  # noqa: A002 -- the field's name
        *,
        new_id: Callable[[], str] = lambda: uuid4().hex,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.format = format
        self._source = f"/queueworkers/{quote(group)}"
        self._new_id = new_id
        self._clock = clock

    def event_id(self) -> str:
        """An id for an event that will be published; empty if the format has none.

        It goes into the journal with the outcome, so that a successor publishes the event with the same id.
        """
        return "" if self.format is EventFormat.LEGACY else self._new_id()

    def wrap(self, event: Event, eval_id: str, event_id: str = "") -> Event:
        """The event in the format. Without an id (of the journal of an earlier version), it gets a new one."""
        if self.format is EventFormat.LEGACY:
            return event
        fields = {
            "specversion": "1.0",
            "id": event_id or self._new_id(),
            "source": self._source,
            "type": TYPES[event.channel],
            "subject": eval_id.encode(errors="backslashreplace").decode(),  # it may hold half a surrogate pair
            "time": datetime.fromtimestamp(self._clock(), UTC),
            "datacontenttype": "application/json",
            "data": msgspec.Raw(event.payload),
        }
        return Event(event.channel, _encode(fields))
