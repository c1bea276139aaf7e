"""The ceiling: the router's HTTP client makes a task's three calls, with nothing around them.

There is no pool, no health check, no journal, no event and no retry, and only what the next call needs is parsed. The
router cannot be faster than this.
"""

from __future__ import annotations

import asyncio
import gc
import os
from itertools import cycle

import orjson
import uvloop

from queueworker.routing.http.transport import HttpTransport

TIMEOUT = 60.0
LIMIT = 8 << 20
IDLE_SECONDS = 0.05


async def route(transport: HttpTransport, queue: str, executors: cycle[str]) -> None:
    while True:
        body = (await transport.get(f"{queue}/tasks/next", TIMEOUT, limit=LIMIT)).body
        task = orjson.loads(body)
        if task is None:
            await asyncio.sleep(IDLE_SECONDS)
            continue
        eval_id = task["eval_id"]
        order = orjson.dumps({"eval_id": eval_id, "code": task["code"], "timeout": task["timeout"]})
        result = (await transport.post(f"{next(executors)}/execute", order, TIMEOUT, limit=LIMIT)).body
        await transport.post(f"{queue}/tasks/{eval_id}/complete", b'{"output":' + result + b"}", TIMEOUT, limit=LIMIT)


async def main() -> None:
    queue, executors = os.environ["QUEUE_SERVICE_URL"], cycle(os.environ["EXECUTOR_ENDPOINTS"].split(","))
    transport = HttpTransport()
    await asyncio.gather(*(route(transport, queue, executors) for _ in range(int(os.environ["CONCURRENCY"]))))


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the router's process does
    uvloop.run(main())
