"""Entries that an earlier version kept in parts, put together when they are taken over.

Such an entry says how many `parts` its task or result has; each is a field of the journal beside the entry:

    0xff, "part ", "task" or "result", its number, ":" and the eval_id
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

PREFIX = b"\xffpart "
"""The beginning of a part's field. No eval_id in UTF-8 begins like this."""
_FIELD = re.compile(rb"\xffpart (task|result)(\d{1,6}):(.*)", re.DOTALL)

# Writes the joined entry and removes its parts, if the instance still lives.
# KEYS lease and journal of the instance; ARGV the id, the entry ("" if there is none to write), the parts' fields.
# Redis refuses the first write of a script for lack of memory, so the parts never go without the entry being there.
JOIN = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[3]) == 0 then return 1 end  -- it is done: this call is late
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
for i = 3, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return 1
"""


@dataclass(slots=True)
class InParts:
    """The parts of one id's entry: their fields in the journal, and the body that they are pieces of."""

    eval_id: bytes
    fields: list[bytes] = field(default_factory=list)
    pieces: dict[tuple[bytes, int], bytes] = field(default_factory=dict)

    def join(self, entry: bytes | None) -> bytes | None:
        """The entry with its body; None if there is no entry, if it cannot be read, or if a part is missing."""
        try:
            data = orjson.loads(entry or b"")
            count = int(data["parts"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None
        name = b"result" if data.get("state") == "executed" else b"task"
        pieces = [self.pieces.get((name, i)) for i in range(min(count, len(self.fields) + 1))]
        if not pieces or None in pieces:
            return None
        del data["parts"]
        return orjson.dumps(data | {name.decode(): orjson.Fragment(b"".join(p for p in pieces if p is not None))})


def split_off(found: dict[bytes, bytes]) -> list[InParts]:
    """Take the parts out of what was found in a journal, and sort them by the id that they belong to."""
    by_id: dict[bytes, InParts] = {}
    for name in [name for name in found if name.startswith(PREFIX)]:
        match = _FIELD.fullmatch(name)
        kind, number, eval_id = match.groups() if match else (b"", b"0", b"")
        parts = by_id.setdefault(eval_id, InParts(eval_id))
        parts.fields.append(name)
        parts.pieces[kind, int(number)] = found.pop(name)
    return list(by_id.values())
