"""A load generator: submits tasks to the queue at a given rate, or as fast as it can, and counts those accepted.

A submission is repeated with the same `eval_id` until the queue has answered, so an outage of the queue costs time but
no task. Only submissions that the queue acknowledged are counted.
"""

import asyncio
import itertools
import random
import signal
import sys
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import aiohttp
import typer

from queueworker.routing.aio import cancelled

GRACE_SECONDS = 5.0
"""Time after the stop for a submission that is under way: the queue may have the task already."""

ANSWER_SECONDS = 10.0
UNREACHABLE = (aiohttp.ClientError, TimeoutError)
ROOM_SECONDS = 0.25
"""Time between two looks at a queue that has too many tasks."""
CATCH_UP_SECONDS = 1.0
"""Submissions that are late by more than this, because of an outage, are not made up for."""

SLOW_PERCENT = 5.0

_QUICK = (
    "print('hello from', {index})",
    "print(sum(range({index} % 1000)))",
    "import math\nprint(math.factorial({index} % 50))",
    "print('\\n'.join(str(line) for line in range({index} % 200)))",
    "import json\nprint(json.dumps({{'task': {index}}}))",
)
_SLOW = "import time\ntime.sleep(0.5)\nprint('slow', {index})"
_FAILING = "raise ValueError('task {index} fails on purpose')"


class LoadError(Exception):
    """The queue refused a task permanently: the key is wrong or the task is malformed."""


def code_for(index: int, fail_percent: float, chance: random.Random, slow_percent: float = SLOW_PERCENT) -> str:
    """The code of one task: `fail_percent` of them raise; of the others `slow_percent` take half a second, and the rest
    prints something quickly.
    """
    if chance.random() * 100 < fail_percent:
        return _FAILING.format(index=index)
    if chance.random() * 100 < slow_percent:
        return _SLOW.format(index=index)
    return chance.choice(_QUICK).format(index=index)


def retry_delay(attempt: int, retry_after: str | None) -> float:
    """Seconds to wait before the next attempt: as the queue asks, or 0.1, 0.2, 0.4 …; at most 2."""
    if retry_after is not None and retry_after.isdecimal():
        return min(float(retry_after), 2.0)
    return float(min(0.1 * 2 ** min(attempt, 10), 2.0))


class _Submitter:
    def __init__(self, client: aiohttp.ClientSession, queue_url: str, stop: asyncio.Event) -> None:
        self._client = client
        self._queue_url = queue_url.rstrip("/")
        self._stop = stop

    async def pause(self, seconds: float) -> None:
        """Sleep, but wake up at the stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def wait_for_room(self, max_waiting: int) -> None:
        """Return when at most that many tasks wait in the queue, or at the stop."""
        while not self._stop.is_set():
            try:
                async with self._client.get(f"{self._queue_url}/status") as answer:
                    if not answer.ok or (await answer.json())["queued"] <= max_waiting:
                        return
            except UNREACHABLE:
                return  # `submit` waits for the queue
            await self.pause(ROOM_SECONDS)

    async def submit(self, task: dict[str, Any]) -> bool:
        """Return whether the queue accepted the task before the stop and the grace after it.

        Raises `LoadError` if the queue refuses the task permanently.
        """
        deadline: float | None = None
        clock = asyncio.get_running_loop().time
        for attempt in itertools.count():
            retry_after = None
            try:
                async with self._client.post(f"{self._queue_url}/tasks", json=task) as answer:
                    if answer.ok:
                        return True
                    if answer.status != 429 and answer.status < 500:
                        text = await answer.text(errors="replace")
                        raise LoadError(f"queue {self._queue_url} answered {answer.status}: {text[:200]}")
                    retry_after = answer.headers.get("Retry-After")
            except UNREACHABLE:
                pass  # the queue may have the task: submitting the same id again does not duplicate it
            if self._stop.is_set():
                deadline = deadline or clock() + GRACE_SECONDS
                if clock() >= deadline:
                    return False
                await asyncio.sleep(0.1)
            else:
                await self.pause(retry_delay(attempt, retry_after))
        raise AssertionError("unreachable")


async def run_load(
    queue_url: str,
    *,
    rate: float | None = None,
    count: int | None = None,
    max_waiting: int | None = None,
    fail_percent: float = 10,
    slow_percent: float = SLOW_PERCENT,
    task_timeout: int = 30,
    concurrency: int = 8,
    api_key: str | None = None,
    prefix: str | None = None,
    seed: int | None = None,
    stop: asyncio.Event | None = None,
    on_submitted: Callable[[int], None] | None = None,
) -> int:
    """Submit `count` tasks, or until `stop` is set. Returns the number of tasks that the queue accepted.

    `rate` is in tasks per second (None: as fast as the queue answers), `task_timeout` in seconds, `fail_percent` and
    `slow_percent` from 0 to 100. While more than `max_waiting` tasks wait in the queue, none is submitted (None: no
    limit). The ids are `{prefix}-000000` and so on; by default each call has a unique prefix. `on_submitted` gets the
    number of accepted tasks after each one, also if this coroutine is cancelled later. Without `count` and `stop` it
    runs until it is cancelled. Raises `LoadError` if the queue refuses tasks permanently, and `ValueError` for a rate
    that is not positive.
    """
    if rate is not None and rate <= 0:
        raise ValueError(f"rate: must be positive, not {rate}")
    stop = stop or asyncio.Event()
    prefix = prefix or f"load-{uuid.uuid4().hex[:8]}"
    chance = random.Random(seed)
    clock = asyncio.get_running_loop().time
    turn = clock()
    indexes = itertools.count() if count is None else iter(range(count))
    submitted = 0

    async def submit_tasks(submitter: _Submitter) -> None:
        nonlocal submitted, turn
        while not stop.is_set():
            index = next(indexes, None)
            if index is None:
                return
            if rate is not None:
                mine = turn
                turn = max(turn + 1 / rate, clock() - CATCH_UP_SECONDS)
                await submitter.pause(mine - clock())
            if max_waiting is not None:
                await submitter.wait_for_room(max_waiting)
            if stop.is_set():
                return
            task = {
                "eval_id": f"{prefix}-{index:06d}",
                "code": code_for(index, fail_percent, chance, slow_percent),
                "language": "python",
                "engine": "docker",
                "timeout": task_timeout,
                "priority": 1,
            }
            if await submitter.submit(task):
                submitted += 1
                if on_submitted is not None:
                    on_submitted(submitted)

    headers = {"X-API-Key": api_key} if api_key else {}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(ANSWER_SECONDS)) as client:
        submitter = _Submitter(client, queue_url, stop)
        submitting = [asyncio.create_task(submit_tasks(submitter)) for _ in range(concurrency)]
        try:
            await asyncio.gather(*submitting)
        finally:
            await cancelled(*submitting)
    return submitted


cli = typer.Typer(add_completion=False)


@cli.command()
def main(
    *,
    queue_url: Annotated[
        str, typer.Option(envvar="QUEUE_SERVICE_URL", help="URL of the queue service.")
    ] = "http://127.0.0.1:8081",
    rate: Annotated[float, typer.Option(help="Tasks per second; 0: as fast as the queue answers.")] = 10,
    count: Annotated[int, typer.Option(help="Number of tasks; 0: until SIGTERM or Ctrl-C.")] = 0,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Submit nothing while more tasks than these wait in the queue; 0: no limit.")
    ] = 0,
    fail_percent: Annotated[float, typer.Option(min=0, max=100, help="Percentage of tasks that raise.")] = 10,
    slow_percent: Annotated[
        float, typer.Option(min=0, max=100, help="Percentage of the others that take half a second.")
    ] = SLOW_PERCENT,
    task_timeout: Annotated[int, typer.Option(min=1, help="Timeout of each task in seconds.")] = 30,
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 8,
    api_key: Annotated[str, typer.Option(envvar="QUEUE_API_KEY", help="The queue's API key; empty: none.")] = "",
    prefix: Annotated[str, typer.Option(help="Beginning of the ids; empty: unique to this run.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of the mix of tasks, for repeating a run.")] = None,
) -> None:
    """Submit tasks to the queue, and print submitted=N at the end."""

    async def run() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await run_load(
            queue_url,
            rate=rate or None,
            count=count or None,
            max_waiting=max_waiting or None,
            fail_percent=fail_percent,
            slow_percent=slow_percent,
            task_timeout=task_timeout,
            concurrency=concurrency,
            api_key=api_key or None,
            prefix=prefix or None,
            seed=seed,
            stop=stop,
        )

    try:
        submitted = asyncio.run(run())
    except (LoadError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"submitted={submitted}", flush=True)


if __name__ == "__main__":
    cli()
