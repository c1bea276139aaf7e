"""The record of failed tasks: what a person can look at, and send again. Pure, but for the Lua that Redis runs.

Keys, beside the journal's:

    queueworker:{group}:failed          hash: eval_id → record
    queueworker:{group}:failed:index    sorted set: eval_id by the time it failed (Unix time in ms)
    queueworker:{group}:failed:bytes    how many bytes the records have together

A record is written in the batch that publishes the failure and removes the journal's entry, or in one of the
next when there are many. They are bounded by count and by bytes, the oldest go first, and an id whose task
ended anew leaves with that batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queueworker.routing.wire.task import Task

MAX_RECORDS = 1000
MAX_RECORDS_BYTES = 16 * 1024 * 1024
MAX_ERROR_CHARS = 2000
# A task that is larger is recorded without its body, and so cannot be sent again from the record.
MAX_TASK_BYTES = 256 * 1024
NO_TASK = b"null"

# The last three KEYS are those of `keys`. For want of memory Redis refuses a script's first write only: a record is
# written whole or not at all.
LUA = f"""
local failed, index, bytes = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]

local function forget(id)
  local size = redis.call('HSTRLEN', failed, id)
  if size == 0 then return 0 end
  redis.call('HDEL', failed, id)
  redis.call('ZREM', index, id)
  redis.call('DECRBY', bytes, size)
  return 1
end

-- the ids ARGV[first] … ARGV[last] have ended: what failed among them is recorded anew
local function ended(first, last)
  if last < first or redis.call('EXISTS', failed) == 0 then return end
  for from = first, last, 1000 do
    local found = redis.call('HMGET', failed, unpack(ARGV, from, math.min(from + 999, last)))
    for n, record in ipairs(found) do
      if record then forget(ARGV[from + n - 1]) end
    end
  end
end

-- ARGV[at] is how many there are, each with its id, its time and its record
local function keep(at)
  local count = tonumber(ARGV[at])
  if count == 0 then return end
  if redis.call('EXISTS', failed) == 0 and redis.call('EXISTS', index, bytes) > 0 then
    redis.call('DEL', index, bytes)
  end
  for i = at + 1, at + 3 * count, 3 do
    forget(ARGV[i])
    redis.call('HSET', failed, ARGV[i], ARGV[i + 2])
    redis.call('ZADD', index, ARGV[i + 1], ARGV[i])
    redis.call('INCRBY', bytes, #ARGV[i + 2])
  end
  while redis.call('ZCARD', index) > {MAX_RECORDS} or tonumber(redis.call('GET', bytes)) > {MAX_RECORDS_BYTES} do
    local oldest = redis.call('ZPOPMIN', index)[1]
    if not oldest then return redis.call('DEL', failed, bytes) end
    forget(oldest)
  end
end
"""

# One record, unless it has been written anew since it was read.
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
    """The one that had it last; empty when none had it."""
    failed_at: float
    """Unix time in seconds."""
    queue_url: str
    ambiguous: bool
    """It may have run to its end all the same (see docs/design.md)."""
    task_bytes: int
    """How large the task is; 0 when the router that reported it did not know the task."""
    task: bytes
    """As the queue gave it; `null` when it was too large to keep, or not known."""

    @property
    def kept(self) -> bool:
        return self.task != NO_TASK

    def encode(self) -> bytes:
        return orjson.dumps(self.shown() | {"task": orjson.Fragment(self.task)})

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


def failed_task(task: Task, error: str, now: float) -> FailedTask:
    """`error` is what was reported to the queue. A task whose result the queue refused has run, too."""
    known = 0 if task.raw == NO_TASK else len(task.raw)
    return FailedTask(
        eval_id=task.eval_id,
        error=error if len(error) <= MAX_ERROR_CHARS else error[:MAX_ERROR_CHARS] + "…",
        attempts=task.attempt,
        executor=task.executor,
        failed_at=round(now, 3),
        queue_url=task.queue.url,
        ambiguous=task.doubtful or (task.outcome is not None and task.outcome.completed),
        task_bytes=known,
        task=bytes(task.raw) if known <= MAX_TASK_BYTES else NO_TASK,
    )


def decode(eval_id: str, raw: bytes) -> FailedTask:
    """A record that cannot be read is one whose error says so: a person may want to see it, and nobody can send it."""
    try:
        data = orjson.loads(raw)
        return FailedTask(
            eval_id=eval_id,
            error=str(data["error"]),
            attempts=int(data["attempts"]),
            executor=str(data["executor"]),
            failed_at=float(data["failed_at"]),
            queue_url=str(data["queue"]),
            ambiguous=bool(data["ambiguous"]),
            task_bytes=int(data["task_bytes"]),
            task=orjson.dumps(data["task"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        return FailedTask(eval_id, f"the record cannot be read: {error!r}", 0, "", 0.0, "", False, 0, NO_TASK)


class Backlog:
    """Records that wait for the next batch: at most as many as the record holds, the oldest go first."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[int, bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, failed: FailedTask) -> None:
        self._put(failed.eval_id, (round(failed.failed_at * 1000), failed.encode()))

    def drop(self, eval_id: str) -> None:
        gone = self._records.pop(eval_id, None)
        if gone is not None:
            self._bytes -= len(gone[1])

    def take(self, most: float = float("inf")) -> Backlog:
        """All of it, or the oldest if it has more bytes (one at least); they wait no longer then."""
        taken = Backlog()
        if self._bytes <= most:
            taken._records, self._records = self._records, {}
            taken._bytes, self._bytes = self._bytes, 0
        else:
            while self and taken._bytes < most:
                eval_id = next(iter(self._records))
                taken._put(eval_id, self._records[eval_id])
                self.drop(eval_id)
        return taken

    def put_back(self, taken: Backlog) -> None:
        """What was taken and not written, before what came since."""
        newer = self.take()
        for eval_id, record in [*taken._records.items(), *newer._records.items()]:
            self._put(eval_id, record)

    def arguments(self) -> Iterator[object]:
        """As `keep` reads them in the script."""
        yield len(self._records)
        for eval_id, (milliseconds, record) in self._records.items():
            yield from (eval_id, milliseconds, record)

    def _put(self, eval_id: str, record: tuple[int, bytes]) -> None:
        self.drop(eval_id)
        self._records[eval_id] = record
        self._bytes += len(record[1])
        while len(self._records) > MAX_RECORDS or self._bytes > MAX_RECORDS_BYTES:
            self.drop(next(iter(self._records)))
