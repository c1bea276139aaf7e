"""Words for people."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 object`, `2 objects`; for nouns whose plural ends with an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
