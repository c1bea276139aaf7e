"""Which trace a task belongs to, as W3C Trace Context writes it. Pure.

https://www.w3.org/TR/trace-context/ has the grammar. Task and headers have the same two fields.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

MAX_TRACEPARENT_CHARS = 256
"""Of a future version's; one of version 00 has 55."""
MAX_TRACESTATE_CHARS = 512
"""W3C asks for at least as many. A longer one is dropped, and the traceparent stays."""
MAX_TRACESTATE_MEMBERS = 32

_IDS = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Of a version that is not known yet, what follows the flags is passed on as it is.
_TRACEPARENT = re.compile(rf"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(?:-[!-~]*)?")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


class TraceContext(NamedTuple):
    """Valid values, which an HTTP header can carry."""

    traceparent: str
    tracestate: str = ""

    @property
    def headers(self) -> str:
        """The lines for the head of a request, each with its end."""
        state = f"tracestate: {self.tracestate}\r\n" if self.tracestate else ""
        return f"traceparent: {self.traceparent}\r\n{state}"


def trace_context(traceparent: Any, tracestate: Any) -> TraceContext | None:
    """What a task says of its trace; None if that is not valid. An invalid tracestate does not invalidate the rest."""
    if not isinstance(traceparent, str) or len(traceparent) > MAX_TRACEPARENT_CHARS:
        return None
    if _TRACEPARENT.fullmatch(traceparent) is None:
        return None
    return TraceContext(traceparent, _tracestate(tracestate))


def _tracestate(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TRACESTATE_CHARS:
        return ""
    members = [member for part in value.split(",") if (member := part.strip(" \t"))]
    valid = len(members) <= MAX_TRACESTATE_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if valid else ""
