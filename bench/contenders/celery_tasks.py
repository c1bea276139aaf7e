"""The same work as a Celery task: send it to an executor, publish the outcome.

Tuned in Celery's favour: HTTP and Redis connections are kept, results are ignored, a task is acknowledged when it is
taken, and nothing is tracked. Celery's broker hands out the task and takes the acknowledgement, so there is no pull
over HTTP and no report.
"""

from __future__ import annotations

import itertools
import os

import orjson
from celery import Celery
from redis import Redis

from bench.contenders.http_session import session

app = Celery("bench", broker=os.environ["REDIS_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=False,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=int(os.environ["CELERY_PREFETCH"]),
    worker_send_task_events=False,
)


executors = itertools.cycle(os.environ["EXECUTOR_ENDPOINTS"].split(","))
post = session()
redis = Redis.from_url(os.environ["REDIS_URL"])
# Names of this process's free slots. The stub needs them to measure the time between two executions in one slot.
free_slots: list[str] = []
slot_numbers = itertools.count()


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def route(eval_id: str, code: str, timeout: int) -> None:
    body = orjson.dumps({"eval_id": eval_id, "code": code, "timeout": timeout})
    slot = free_slots.pop() if free_slots else f"{os.getpid()}-{next(slot_numbers)}"
    result = post(f"{next(executors)}/execute?slot={slot}", body, timeout + 10)
    redis.publish("evaluation:completed", b'{"eval_id":"%s","result":%s}' % (eval_id.encode(), result))
    free_slots.append(slot)
