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
    """One as Celery itself sends it, and copies of that with ids of their own: sending each would take minutes."""
    from celery import Celery  # it is in an environment of its own, where this function runs

    with Celery(broker=redis_url) as app, Redis.from_url(redis_url) as redis:
        app.send_task(TASK, ("c0", "print(1)", 30), ignore_result=True)
        sample = orjson.loads(redis.lindex(QUEUE, 0) or b"")
        copies = itertools.islice(_copies(sample), count - 1)
        while batch := list(itertools.islice(copies, _BATCH)):
            redis.lpush(QUEUE, *batch)


def empty(redis_url: str) -> int:
    """Take out what still waits; returns how many. What a worker has taken is not touched."""
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
