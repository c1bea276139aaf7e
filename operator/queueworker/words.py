"""Words for people."""

from __future__ import annotations

import re


def counted(count: int, noun: str) -> str:
    """`1 object`, `2 objects`; for nouns whose plural ends with an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text as a terminal may have it: what others wrote must not control it. Line ends and tabs stay."""
    return _CONTROL.sub("�", text)
