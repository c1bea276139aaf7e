"""Events that wait to be published."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.routing.wire.outcome import Event

# An event, and the id whose entry leaves the journal with it.
BufferedEvent: TypeAlias = "tuple[Event, str | None]"

# What an event takes beside its payload, in memory and in a batch.
EVENT_BYTES = 256


class EventBuffer:
    """Events in the order of their publication, and how many bytes they have. It drops nothing by itself."""

    def __init__(self, max_bytes: int) -> None:
        self._events: deque[BufferedEvent] = deque()
        self._max_bytes = max_bytes
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        return self.bytes >= self._max_bytes

    def add(self, event: Event, removes: str | None = None) -> None:
        self._events.append((event, removes))
        self.bytes += len(event.payload) + EVENT_BYTES

    def take(self, max_bytes: int) -> deque[BufferedEvent]:
        """The oldest, so many bytes at most; or one that is larger."""
        if self.bytes <= max_bytes:
            taken, self._events, self.bytes = self._events, deque(), 0
            return taken
        taken, size = deque(), 0
        for buffered in self._events:
            size += _size(buffered)
            if size > max_bytes and taken:
                break
            taken.append(buffered)
        for _ in taken:
            self._take_oldest()
        return taken

    def put_back(self, events: Iterable[BufferedEvent]) -> None:
        """Put events that were taken before all others, because they are older."""
        older = [*events]
        self._events.extendleft(reversed(older))
        self.bytes += sum(map(_size, older))

    def keep_entries(self) -> None:
        """No entry leaves with an event any more: the journal that held them is not ours."""
        self._events = deque((event, None) for event, _ in self._events)

    def drop_oldest(self, excess: int = 0) -> list[BufferedEvent]:
        """Drop what is above the bound, and so many bytes at least, but never the last event. Returns the dropped."""
        dropped, most = [], min(self._max_bytes, self.bytes - excess)
        while self.bytes > most and len(self._events) > 1:
            dropped.append(self._take_oldest())
        return dropped

    def _take_oldest(self) -> BufferedEvent:
        oldest = self._events.popleft()
        self.bytes -= _size(oldest)
        return oldest


def _size(buffered: BufferedEvent) -> int:
    return len(buffered[0].payload) + EVENT_BYTES
