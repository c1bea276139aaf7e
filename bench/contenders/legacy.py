"""The loop of the legacy worker: httpx, a health check before each task, one task at a time.

`make bench` measures it against the same stub as the router. It is not part of the product.
"""

from __future__ import annotations

import asyncio
import json
import os
import random

import httpx
from redis.asyncio import Redis


async def main() -> None:
    queue, executors = os.environ["QUEUE_SERVICE_URL"], os.environ["EXECUTOR_ENDPOINTS"].split(",")
    redis = Redis.from_url(os.environ["REDIS_URL"])
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        while True:
            task = (await client.get(f"{queue}/tasks/next")).json()
            if task is None:
                await asyncio.sleep(1)
                continue
            random.shuffle(executors)
            for executor in executors:
                if (await client.get(f"{executor}/health", timeout=2)).status_code == 200:
                    break
            body = {"eval_id": task["eval_id"], "code": task["code"], "timeout": task["timeout"]}
            result = (await client.post(f"{executor}/execute", json=body)).json()
            await client.post(f"{queue}/tasks/{task['eval_id']}/complete", json={"output": result})
            await redis.publish("evaluation:completed", json.dumps({"eval_id": task["eval_id"], "result": result}))


if __name__ == "__main__":
    asyncio.run(main())
