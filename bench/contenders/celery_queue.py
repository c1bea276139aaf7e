"""Celery's queue on Redis: filled beforehand, and counted afterwards."""

from __future__ import annotations

import base64
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

QUEUE = "celery"
TASK = "bench.contenders.celery_tasks.route"
_BATCH = 2000


def enqueue(redis_url: str, count: int) -> None:
    """Send one task with Celery, and push copies of its message with other ids: sending each would take minutes."""
    from celery import Celery  # this function runs in Celery's virtual environment

    with Celery(broker=redis_url) as app, Redis.from_url(redis_url) as redis:
        app.send_task(TASK, ("c0", "print(1)", 30), ignore_result=True)
        sample = orjson.loads(redis.lindex(QUEUE, 0) or b"")
        copies = itertools.islice(_copies(sample), count - 1)
        while batch := list(itertools.islice(copies, _BATCH)):
            redis.lpush(QUEUE, *batch)


def empty(redis_url: str) -> int:
    """Remove tasks that still wait. Returns their number. Tasks that a worker has taken are not touched."""
    with Redis.from_url(redis_url) as redis, redis.pipeline() as transaction:
        count, _ = transaction.llen(QUEUE).delete(QUEUE).execute()
        return int(count)


def _copies(sample: dict[str, Any]) -> Iterator[bytes]:
    (_, *args), kwargs, embed = orjson.loads(base64.b64decode(sample["body"]))
    for number in itertools.count(1):
        task_id = str(uuid4())
        sample["body"] = base64.b64encode(orjson.dumps([[f"c{number}", *args], kwargs, embed])).decode()
        sample["headers"] |= {"id": task_id, "root_id": task_id}
        sample["properties"] |= {"correlation_id": task_id, "delivery_tag": str(uuid4())}
        yield orjson.dumps(sample)


if __name__ == "__main__":
    enqueue(os.environ["REDIS_URL"], int(sys.argv[1]))
