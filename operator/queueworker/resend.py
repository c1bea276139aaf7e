"""The record of failed tasks as a person uses it: read it, and send tasks to their queue again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from queueworker.redaction import without_credentials
from queueworker.routing.http.transport import Answer, HttpTransport, NotSent, TransportError
from queueworker.routing.journal.failed_tasks import REMOVE, FailedTask, decode, keys
from queueworker.routing.journal.redis_client import answer_of, connect
from queueworker.routing.limits import Limits
from queueworker.routing.queue.answers import key_refused, read_look_up, read_submission
from queueworker.routing.wire.reading import excerpt
from queueworker.routing.wire.task import path_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis


REDIS_TIMEOUT_SECONDS = 5.0
QUEUE_TIMEOUT_SECONDS = 20.0
PAGE = 100
MAX_GROUPS = 20
MAX_SCANS = 1000
_GROUP = re.compile(rb"queueworker:\{([^}]+)\}:")


class FailedTasks:
    """One group's record. Every call raises RedisError or OSError while Redis is away."""

    def __init__(self, redis_url: str, group: str) -> None:
        self._redis: Redis = connect(
            redis_url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS
        )
        self._keys = keys(f"queueworker:{{{group}}}:")
        self._read: dict[str, bytes] = {}

    async def newest_first(self) -> AsyncIterator[FailedTask]:
        hash_key, index, _ = self._keys
        ids = [i.decode() for i in await answer_of(self._redis.zrevrange(index, 0, -1))]
        for first in range(0, len(ids), PAGE):
            page = ids[first : first + PAGE]
            for eval_id, raw in zip(page, await answer_of(self._redis.hmget(hash_key, page)), strict=True):
                if raw is not None:
                    yield self._decoded(eval_id, raw)

    async def get(self, eval_id: str) -> FailedTask | None:
        raw = await answer_of(self._redis.hget(self._keys[0], eval_id))
        return None if raw is None else self._decoded(eval_id, raw)

    async def remove(self, task: FailedTask) -> None:
        """Take out what was read, and nothing newer: the task may have failed again since."""
        await answer_of(self._redis.eval(REMOVE, 3, *self._keys, task.eval_id, self._read[task.eval_id]))

    async def groups(self) -> list[str]:
        """The groups that this Redis knows, at most MAX_GROUPS, sorted. A large Redis is looked through in part."""
        found: set[str] = set()
        cursor = 0
        for _ in range(MAX_SCANS):
            cursor, names = await answer_of(self._redis.scan(cursor, match="queueworker:{*", count=1000))
            found.update(match[1].decode("utf-8", "replace") for name in names if (match := _GROUP.match(name)))
            if cursor == 0 or len(found) >= MAX_GROUPS:
                break
        return sorted(found)[:MAX_GROUPS]

    async def close(self) -> None:
        await self._redis.aclose()

    def _decoded(self, eval_id: str, raw: bytes) -> FailedTask:
        self._read[eval_id] = raw
        return decode(eval_id, raw)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one retry: `done` when the queue has the task now."""

    eval_id: str
    done: bool
    message: str


def refusal(task: FailedTask, *, ambiguous: bool) -> str:
    """Why this task is not sent again; empty when it is."""
    if not task.kept and task.task_bytes:
        most = Limits().max_failed_task_body_bytes
        return f"its {task.task_bytes:,} bytes are more than the record keeps ({most:,}): submit it yourself"
    if not task.kept:
        return "the record holds no task, because the router that reported it did not know more: submit it yourself"
    if task.ambiguous and not ambiguous:
        return f"it may have run to its end, and would run twice ({excerpt(task.error.encode())}); --ambiguous sends it"
    return ""


class Resender:
    """Sends tasks to their queues. One that cannot be reached, or refuses the key, is not asked for each task anew."""

    def __init__(self, tasks: FailedTasks, key: str | None, queue_url: str | None) -> None:
        self._tasks = tasks
        self._transport = HttpTransport()
        self._key = key
        self._queue_url = queue_url
        self._unusable: dict[str, str] = {}

    async def aclose(self) -> None:
        await self._transport.close()

    async def send(self, task: FailedTask) -> Sent:
        """Only what the queue has accepted leaves the record."""
        url = (self._queue_url or task.queue_url).rstrip("/")
        shown = without_credentials(url)
        if url in self._unusable:
            return Sent(task.eval_id, done=False, message=f"not sent: {self._unusable[url]}")
        try:
            state = await self._state(url, task.eval_id)
            if state is None or state:
                return self._not_sent(task, shown, state)
            answer = await self._transport.post(
                f"{url}/tasks", task.task, QUEUE_TIMEOUT_SECONDS, self._key, limit=Limits().max_small_body_bytes
            )
        except NotSent as error:
            self._unusable[url] = (
                f"queue cannot be reached at {without_credentials(str(error))}; is --queue-url needed?"
            )
            return Sent(task.eval_id, done=False, message=f"not sent: {self._unusable[url]}")
        except TransportError as error:
            text = without_credentials(str(error))
            return Sent(task.eval_id, done=False, message=f"no answer of the queue, which may have it: {text}")
        position = read_submission(*answer)
        if position is None:
            return self._refused(task, url, answer)
        if position == 0:
            return self._not_sent(task, shown, "running")
        message = f"sent to queue {shown} at position {position}"
        try:
            await self._tasks.remove(task)
        except (RedisError, OSError) as error:
            message += f"; the record keeps it until it ends, because Redis did not answer: {error}"
        return Sent(task.eval_id, done=True, message=message)

    async def _state(self, url: str, eval_id: str) -> str | None:
        """As `read_look_up`: a task that the queue has already must not be joined by a second one."""
        answer = await self._transport.get(
            f"{url}/tasks/{path_id(eval_id)}", QUEUE_TIMEOUT_SECONDS, self._key, limit=Limits().max_small_body_bytes
        )
        if key_refused(*answer):
            return ""  # the next call says so
        return read_look_up(*answer)

    def _not_sent(self, task: FailedTask, shown: str, state: str | None) -> Sent:
        if state is None:
            why = f"{shown} did not answer as the queue does when it was asked for the task: check --queue-url"
            return Sent(task.eval_id, done=False, message=f"not sent: {why}")
        return Sent(task.eval_id, done=True, message=f"not sent: queue {shown} has it already ({state})")

    def _refused(self, task: FailedTask, url: str, answer: Answer) -> Sent:
        shown, status = without_credentials(url), answer.status
        if key_refused(*answer):
            how = "was refused" if self._key else "was not given"
            self._unusable[url] = f"queue {shown} answered {status}: the API key {how}; set QUEUE_API_KEY"
            return Sent(task.eval_id, done=False, message=f"not sent: {self._unusable[url]}")
        return Sent(
            task.eval_id, done=False, message=f"queue {shown} did not take it: {status}, {excerpt(answer.body)}"
        )
