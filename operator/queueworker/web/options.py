"""What the HTTP API shows, and what may be done with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MIN_TOKEN_CHARS = 16


class Failures(StrEnum):
    """What of failed tasks the HTTP API shows, which needs no login. Summary: not their errors."""

    FULL = "Full"
    SUMMARY = "Summary"
    OFF = "Off"


@dataclass(frozen=True, slots=True)
class WebOptions:
    """`token` allows actions; without one there are none."""

    failures: Failures = Failures.FULL
    token: str = field(default="", repr=False)
