"""The record of failed tasks, which is the dead-letter queue: people look at it, and send tasks again. Pure, but for
the Lua that Redis runs.

Keys, beside the journal's:

    queueworker:{group}:failed          hash: eval_id → record
    queueworker:{group}:failed:index    sorted set: eval_id by the time it failed (Unix time in ms); by the order in
                                        which they were written, where the clock says otherwise
    queueworker:{group}:failed:bytes    how many bytes the records have together

A record is written in the batch that publishes the failure and removes the journal's entry, or in one of the next when
there are many. Records are bounded by count and by bytes, the oldest go first, and a batch that ends a task anew
removes the record of its earlier failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from queueworker.routing.wire.reading import write_for_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queueworker.routing.limits import Limits

NO_TASK = b"null"
_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

# The last three KEYS are those of `keys`. Redis looks at its memory before the first write of a script only, so a
# record is written whole or not at all.
LUA = """
local failed, index, bytes = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]

local function forget(id)
  local size = redis.call('HSTRLEN', failed, id)
  if size == 0 then return 0 end
  redis.call('HDEL', failed, id)
  redis.call('ZREM', index, id)
  redis.call('DECRBY', bytes, size)
  return 1
end

-- the tasks ARGV[first] … ARGV[last] have ended: a record of an earlier failure goes
local function ended(first, last)
  if last < first or redis.call('EXISTS', failed) == 0 then return end
  for from = first, last, 1000 do
    local found = redis.call('HMGET', failed, unpack(ARGV, from, math.min(from + 999, last)))
    for n, record in ipairs(found) do
      if record then forget(ARGV[from + n - 1]) end
    end
  end
end

-- ARGV[at] is the number of records; if there are any, the bounds of count and of bytes follow, then each record's id,
-- its time and the record
local function keep(at)
  local count = tonumber(ARGV[at])
  if count == 0 then return end
  local max_count, max_bytes = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if redis.call('EXISTS', failed) == 0 and redis.call('EXISTS', index, bytes) > 0 then
    redis.call('DEL', index, bytes)
  end
  -- a clock that was hours ahead must not have the newest records taken for the oldest
  local newest = redis.pcall('ZRANGE', index, -1, -1, 'WITHSCORES')
  local last = newest.err and 0 or tonumber(newest[2] or 0)
  for i = at + 3, at + 3 * count, 3 do
    last = math.max(tonumber(ARGV[i + 1]), last + 1)
    forget(ARGV[i])
    redis.call('HSET', failed, ARGV[i], ARGV[i + 2])
    redis.call('ZADD', index, string.format('%.0f', last), ARGV[i])
    redis.call('INCRBY', bytes, #ARGV[i + 2])
  end
  while redis.call('ZCARD', index) > max_count or tonumber(redis.call('GET', bytes)) > max_bytes do
    local oldest = redis.call('ZPOPMIN', index)[1]
    if not oldest then return redis.call('DEL', failed, bytes) end
    forget(oldest)
  end
end
"""

# Removes one record, unless it was written anew since it was read.
REMOVE = (
    LUA
    + """
if redis.call('HGET', failed, ARGV[1]) ~= ARGV[2] then return 0 end
return forget(ARGV[1])
"""
)


def keys(base: str) -> list[str]:
    """`base` is `queueworker:{group}:`, as in the journal."""
    return [f"{base}failed", f"{base}failed:index", f"{base}failed:bytes"]


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A task that was reported as failed, and what is needed to send it again."""

    eval_id: str
    error: str
    attempts: int
    executor: str
    """The executor that had it last; empty when none had it."""
    failed_at: float
    """Unix time in seconds."""
    queue_url: str
    ambiguous: bool
    """It may have run to its end all the same (see docs/design.md)."""
    task_bytes: int
    """Size of the task; 0 when the router that reported it did not know the task."""
    task: bytes
    """As the queue gave it; `null` when it was too large to keep, or not known."""

    @property
    def kept(self) -> bool:
        return self.task != NO_TASK

    def encode(self) -> bytes:
        fields = self.shown() | {"task": orjson.Fragment(self.task)}
        try:
            return orjson.dumps(fields)
        except TypeError:  # half a surrogate pair in the error
            return orjson.dumps(fields | {"error": orjson.Fragment(write_for_all(self.error))})

    def shown(self) -> dict[str, Any]:
        """All of it but the task."""
        return {
            "eval_id": self.eval_id,
            "error": self.error,
            "attempts": self.attempts,
            "executor": self.executor,
            "failed_at": self.failed_at,
            "queue": self.queue_url,
            "ambiguous": self.ambiguous,
            "task_bytes": self.task_bytes,
        }


def decode(eval_id: str, raw: bytes) -> FailedTask:
    """A record that cannot be read has an error that says so: a person may want to see it, and nobody can send it."""
    try:
        fields = _decoder.decode(raw)
        task = bytes(fields.pop("task"))  # byte for byte: numbers are not read, and so not written in another way
        data = {name: orjson.loads(bytes(value)) for name, value in fields.items()}
        return FailedTask(
            eval_id=eval_id,
            error=str(data["error"]),
            attempts=int(data["attempts"]),
            executor=str(data["executor"]),
            failed_at=float(data["failed_at"]),
            queue_url=str(data["queue"]),
            ambiguous=bool(data["ambiguous"]),
            task_bytes=int(data["task_bytes"]),
            task=task,
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        return FailedTask(eval_id, f"the record cannot be read: {error!r}", 0, "", 0.0, "", False, 0, NO_TASK)


class Backlog:
    """Records that wait for the next batch: at most as many as Redis keeps, the oldest go first."""

    def __init__(self, limits: Limits) -> None:
        self.bytes = 0
        self._limits = limits
        self._records: dict[str, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add(self, failed: FailedTask) -> None:
        self._put(failed.eval_id, (round(failed.failed_at * 1000), failed.encode()))

    def drop(self, eval_id: str) -> None:
        gone = self._records.pop(eval_id, None)
        if gone is not None:
            self.bytes -= len(gone[1])

    def drop_oldest(self, excess: int) -> None:
        """Drop so many bytes at least, but never the last record."""
        most = self.bytes - excess
        while self.bytes > most and len(self) > 1:
            self.drop(next(iter(self._records)))

    def take(self, max_bytes: float = float("inf")) -> Backlog:
        """The oldest, so many bytes at most; or one that is larger. They wait no longer then."""
        taken = Backlog(self._limits)
        if self.bytes <= max_bytes:
            taken._records, self._records = self._records, {}
            taken.bytes, self.bytes = self.bytes, 0
            return taken
        for eval_id, record in list(self._records.items()):
            if taken and taken.bytes + len(record[1]) > max_bytes:
                break
            taken._put(eval_id, record)
            self.drop(eval_id)
        return taken

    def put_back(self, taken: Backlog) -> None:
        """Put records that were taken and not written before those that came since. A newer failure wins."""
        newer = self.take()
        for eval_id, record in [*taken._records.items(), *newer._records.items()]:
            self._put(eval_id, record)

    def arguments(self) -> Iterator[object]:
        """As `keep` reads them in the script."""
        yield len(self._records)
        if self._records:
            yield from (self._limits.max_failed_tasks, self._limits.max_failed_tasks_bytes)
        for eval_id, (milliseconds, record) in self._records.items():
            yield from (eval_id, milliseconds, record)

    def _put(self, eval_id: str, record: tuple[int, bytes]) -> None:
        self.drop(eval_id)
        self._records[eval_id] = record
        self.bytes += len(record[1])
        while len(self) > self._limits.max_failed_tasks or self.bytes > self._limits.max_failed_tasks_bytes:
            self.drop(next(iter(self._records)))
