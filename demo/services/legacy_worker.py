"""The loop as the legacy worker wrote it, to be shown beside the router. It is not part of the product.

One task at a time, a health check before each, no journal, no retry. An error is printed, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

import httpx
import orjson
from redis.asyncio import Redis

IDLE_SECONDS = 1.0
BACKOFF_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 30.0


class LegacyWorker:
    def __init__(self, client: httpx.AsyncClient, redis: Redis, queue: str, executors: list[str]) -> None:
        self._client = client
        self._redis = redis
        self._queue = queue
        self._executors = executors

    async def run(self) -> None:
        """Route tasks until the process is ended."""
        errors = 0
        while True:
            try:
                answer = await self._client.get(f"{self._queue}/tasks/next")
                task = answer.json() if answer.status_code == 200 else None
                if task is None:
                    await asyncio.sleep(IDLE_SECONDS)
                else:
                    await self._route(task)
                errors = 0
            except Exception as error:
                errors += 1
                print(repr(error), file=sys.stderr, flush=True)
                await asyncio.sleep(min(BACKOFF_SECONDS * errors, MAX_BACKOFF_SECONDS))

    async def _route(self, task: dict[str, Any]) -> None:
        executor = await self._healthy_executor()
        if executor is None:
            await self._fail(task, "No healthy executors available")
            return
        try:
            body = {"eval_id": task["eval_id"], "code": task["code"], "timeout": task["timeout"]}
            answer = await self._client.post(f"{executor}/execute", json=body)
        except httpx.HTTPError as error:
            await self._fail(task, str(error))
            return
        if answer.status_code != 200:
            await self._fail(task, f"Executor rejected task: {answer.text}")
            return
        await self._report(task, answer.json())

    async def _report(self, task: dict[str, Any], result: dict[str, Any]) -> None:
        event = {"eval_id": task["eval_id"], "result": result}
        if result["status"] == "completed":
            await self._client.post(f"{self._queue}/tasks/{task['eval_id']}/complete", json={"output": result})
            await self._redis.publish("evaluation:completed", orjson.dumps(event))
        else:
            error = result["error"] or "Execution failed"
            await self._fail(task, error)
            await self._redis.publish("evaluation:failed", orjson.dumps(event | {"error": error}))

    async def _fail(self, task: dict[str, Any], error: str) -> None:
        await self._client.post(f"{self._queue}/tasks/{task['eval_id']}/fail", json={"error": error})

    async def _healthy_executor(self) -> str | None:
        for executor in random.sample(self._executors, len(self._executors)):
            try:
                if (await self._client.get(f"{executor}/health", timeout=2)).status_code == 200:
                    return executor
            except httpx.HTTPError:
                continue
        return None


async def main() -> None:
    queue, executors = os.environ["QUEUE_SERVICE_URL"], os.environ["EXECUTOR_ENDPOINTS"].split(",")
    redis = Redis.from_url(os.environ["REDIS_URL"])
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        await LegacyWorker(client, redis, queue, executors).run()


if __name__ == "__main__":
    asyncio.run(main())
