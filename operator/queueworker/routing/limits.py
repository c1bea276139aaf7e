"""The bounds of the data plane on what is held in memory or sent at once, and how long the journal waits.

Those of one class stand beside it; docs/design.md lists all.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and counts. The limit of a task and of a result is a field of the object (`routing.maxBodyMebibytes`)."""

    max_small_body_bytes: int = 64 * KIB
    """Of an answer that holds neither task nor result: health, capacity, depth, reports."""
    max_batch_bytes: int = 512 * KIB
    """Of entries, of events and of failed-task records in one batch (or one item that is larger): a script blocks
    Redis for everybody."""
    max_takeover_bytes: int = 8 * MIB
    """Of the entries that one heartbeat takes over from dead instances: its answer has to come in time."""
    max_buffered_event_bytes: int = 64 * MIB
    """Of events that wait for Redis. Above it the oldest are dropped while Redis is away; while it is there, nothing
    new is pulled."""
    max_stuck_reports: int = 64
    """Reports that the queue refuses and that wait to be sent again. Above it nothing new is pulled."""
    max_concurrent_polls: int = 1024
    max_failed_tasks: int = 1000
    """Records of failed tasks that are kept, in memory and in Redis; the oldest are dropped."""
    max_failed_tasks_bytes: int = 16 * MIB
    max_failed_task_body_bytes: int = 256 * KIB
    """A larger task is recorded without its body, and cannot be sent again from the record."""
    max_error_chars: int = 2000
    """Of an error in the record of a failed task."""


@dataclass(frozen=True, slots=True)
class JournalTimes:
    """How long the journal waits. All in seconds."""

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

    def transfer(self, size: int, timeouts: int = 0) -> float:
        """For sending so many bytes, at a megabyte a second or faster; eight times slower at most, after `timeouts` in
        a row.
        """
        return (self.operation + size / 1_000_000) * (1 << min(timeouts, 3))


TIMES = JournalTimes()
