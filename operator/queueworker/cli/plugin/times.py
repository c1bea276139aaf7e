"""Times: read from the API server, and written for people."""

from __future__ import annotations

from datetime import UTC, datetime


def time_of(text: object) -> datetime | None:
    """The time in UTC; None if the text is no time in RFC 3339."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def seconds(value: float | None) -> str:
    """A time span as people write it, in at most five characters. One that two clocks make negative counts as 0."""
    if value is None:
        return "-"
    value = max(0.0, value)
    if value < 10:
        return f"{value:.1f} s"
    for limit, unit, factor in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if value < limit:
            return f"{value / factor:.0f} {unit}"
    return f"{value / 86400:.0f} d"
