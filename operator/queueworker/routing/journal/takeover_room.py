"""How much may be moved from dead instances into our journal at once."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.routing.memory_budget import MemoryAccount


class Moved(Enum):
    """What heartbeats have moved from dead instances into our journal, and we have not read yet."""

    NOTHING = auto()
    PERHAPS = auto()
    """A heartbeat that was to move something had no answer: it may still be on its way, until a later one had."""
    LAST_PORTION = auto()
    FULL_PORTION = auto()
    """There may be more to move."""


class TakeoverRoom:
    """How much a heartbeat may move from dead instances into our journal: one portion, until that one is read.

    No bytes while the memory budget forbids pulls: what dead instances left is safe in Redis.
    """

    def __init__(self, max_bytes: int, memory: MemoryAccount) -> None:
        self.unread = asyncio.Event()
        """A portion is to be read, or may be there."""
        self.wanted = asyncio.Event()
        """There may be more to move: the next heartbeat is due at once."""
        self._moved = Moved.NOTHING
        self._max_bytes = max_bytes
        self._memory = memory

    @property
    def empty(self) -> bool:
        """Whether our journal in Redis certainly holds nothing of others that we have not read."""
        return self._moved is Moved.NOTHING

    @property
    def bytes(self) -> int:
        return self._max_bytes if self.empty and self._memory.has_room else 0

    def unanswered(self) -> None:
        """A heartbeat that was to move something had no answer."""
        self._moved = Moved.PERHAPS

    def answered(self, size: int) -> None:
        """A heartbeat was answered, and has moved so many bytes."""
        if size or self._moved is Moved.PERHAPS:
            self._moved = Moved.FULL_PORTION if size >= self._max_bytes else Moved.LAST_PORTION
            self.unread.set()

    def lost(self) -> None:
        """Another instance has our journal, and what was moved there with it."""
        self._moved = Moved.NOTHING
        self.unread.clear()

    def read(self) -> None:
        """Everything that was moved is read."""
        if self._moved is Moved.FULL_PORTION:
            self.wanted.set()
        self._moved = Moved.NOTHING
        self.unread.clear()
