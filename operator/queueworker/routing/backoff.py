"""How long to wait. Pure functions of counts, in seconds."""

from __future__ import annotations

QUEUE_STEP_SECONDS = 5.0
QUEUE_CAP_SECONDS = 30.0


def queue_delay(consecutive_errors: int) -> float:
    """5, 10, 15 … 30 s: what the legacy worker waited while the queue could not be reached."""
    return min(QUEUE_STEP_SECONDS * consecutive_errors, QUEUE_CAP_SECONDS)


def exponential(attempt: int, first: float, most: float) -> float:
    """The delay after the attempt of that number (from 1): first, 2·first, 4·first …, at most `most`."""
    return float(min(first * 2 ** min(attempt - 1, 30), most))
