"""How long the journal waits, in one value that is handed to its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JournalTimes:
    """All in seconds."""

    lease: float = 6.0
    """An instance that has not renewed its lease for so long is dead to the others."""
    heartbeat: float = 2.0
    """Between two renewals of the lease."""
    rivals: float = 0.5
    """The same, while rivals hold slots: how soon we know that one is given back."""
    operation: float = 2.0
    """For connecting to Redis, and for a command that carries little."""
    flush: float = 3.0
    """For writing what is left when the journal is closed."""
    first_retry: float = 0.25
    max_retry: float = 5.0
    fenced: int = 86_400
    """For which an instance that was declared dead can still find out who has its entries."""

    def transfer(self, size: int) -> float:
        """For sending so many bytes, at a megabyte a second or faster."""
        return self.operation + size / 1_000_000


TIMES = JournalTimes()
