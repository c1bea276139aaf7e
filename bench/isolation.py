"""`make bench-isolation`: how a misbehaving neighbour in the same operator affects a QueueWorker's routing overhead.

Two routers run in one process and one event loop with one Redis, as in an operator. Their queues and executors are
separate processes. The overhead is the time from a pull's answer to the report's acknowledgement, without the
executor's time. It is compared with the overhead when the neighbour's router has a process and a Redis of its own: that
includes the load which the neighbour and its stubs put on the machine, and which is not the operator's fault.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Annotated

import orjson
import typer
import uvloop
from aiohttp import web
from rich.console import Console
from rich.table import Table

from bench.processes import process
from devcluster.redis_server import RedisServer
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Endpoint, RouterConfig
from queueworker.routing.counters import Histogram
from queueworker.routing.router import Router

RATE = 200.0
NEIGHBOURS = {
    "alone": "",
    "its queue hangs": "hangs",
    "its queue answers 500": "errors",
    "its executor hangs": "stuck",
    "it is as fast as possible": "fast",
    "its results have 0.9 MB": "results-0.9",
    "its results have 8 MB": "results-8",
    "its tasks have 8 MB": "tasks-8",
    "its results have 50 MB": "results-50",
    "its tasks have 50 MB": "tasks-50",
}

app = typer.Typer()


@app.command()
def stub(kind: str) -> None:
    """Serve a queue and an executor, and print their URL."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # requests that are under way at the end
    kind, _, megabytes = kind.partition("-")
    code = "x" * int(1_000_000 * float(megabytes)) if kind == "tasks" else "print(1)"
    output = "a line of output\n" * int(1_000_000 / 18 * float(megabytes)) if kind == "results" else "1\n"
    tail = orjson.dumps({"code": code, "timeout": 60})[1:]
    answer = orjson.dumps({"status": "completed", "output": output, "error": None, "exit_code": 0})
    numbers, started = itertools.count(), time.monotonic()
    allowed = RATE if kind == "good" else 1e9

    async def pull(_: web.Request) -> web.Response:
        if kind == "hangs":
            await asyncio.sleep(3600)
        if kind == "errors":
            return web.Response(status=500)
        if next(numbers) > (time.monotonic() - started) * allowed:
            return web.json_response(None)
        return web.Response(body=b'{"eval_id":"%s-%d",' % (kind.encode(), time.monotonic_ns()) + tail)

    async def execute(request: web.Request) -> web.Response:
        await request.read()
        if kind == "stuck":
            await asyncio.sleep(3600)
        return web.Response(body=answer)

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"status": "completed"})

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def serve() -> None:
        server = web.Application(client_max_size=1 << 30)
        server.add_routes([web.get("/tasks/next", pull), web.post("/execute", execute), web.get("/health", healthy)])
        server.add_routes([web.post("/tasks/{id}/complete", take), web.post("/tasks/{id}/fail", take)])
        runner = web.AppRunner(server, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.sleep(3600)

    uvloop.run(serve())


class Overheads(Histogram):
    """A histogram that also keeps every observation."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def observe(self, seconds: float) -> None:
        super().observe(seconds)
        self.seen.append(seconds)


def start_router(name: str, url: str, redis_url: str) -> tuple[Router, asyncio.Task[None], Overheads]:
    spec = QueueWorkerSpec.model_validate({"queue": {"url": url}, "executors": {"concurrency": 4}})
    router = Router(RouterConfig(f"bench/{name}", spec, redis_url), [Endpoint("executor-1", url)], worker_id="bench")
    overheads = router.snapshot().counters.overhead = Overheads()
    return router, asyncio.create_task(router.run()), overheads


@app.command()
def router(url: str, redis_url: str) -> None:
    """Run the neighbour's router."""

    async def run() -> None:
        await start_router("bad", url, redis_url)[1]

    uvloop.run(run())


async def measure(good: tuple[str, str], bad: tuple[str, str] | None, seconds: float) -> tuple[list[float], int, float]:
    """Return the good router's sorted overheads, the neighbour's tasks, and the longest time the loop was blocked.

    Of each router, the URLs of its queue and of its Redis.
    """
    _, _, overheads = (one := start_router("good", *good))
    running = [one]
    if bad is not None:
        running.append(start_router("bad", *bad))
    await asyncio.sleep(3)
    overheads.seen.clear()
    until, longest = time.monotonic() + seconds, 0.0
    while (now := time.monotonic()) < until:
        await asyncio.sleep(0.002)
        longest = max(longest, time.monotonic() - now - 0.002)
    seen = sorted(overheads.seen)
    others = running[-1][0].snapshot().counters.routed if bad is not None else 0
    for _, run, _ in running:
        run.cancel()
    await asyncio.gather(*(run for _, run, _ in running), return_exceptions=True)
    return seen, others, longest


def beside(kind: str, seconds: float, *, apart: bool, own_redis: bool) -> tuple[list[float], int, float]:
    """Call `measure` with new stubs and a new Redis. `own_redis`: the neighbour has another one."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        other = stack.enter_context(RedisServer()) if apart or own_redis else redis
        good, *bad = (_started(stack, "stub", name) for name in ["good", *([kind] if kind else [])])
        if bad and apart:
            _start(stack, "router", *bad, other.url)
        neighbour = (bad[0], other.url) if bad and not apart else None
        return uvloop.run(measure((good, redis.url), neighbour, seconds))


def _start(stack: ExitStack, *arguments: str) -> subprocess.Popen[str]:
    return stack.enter_context(process([sys.executable, "-m", "bench.isolation", *arguments]))


def _started(stack: ExitStack, *arguments: str) -> str:
    """Start a process and return the URL that it prints."""
    child = _start(stack, *arguments)
    assert child.stdout is not None
    return child.stdout.readline().strip()


@app.command()
def main(
    seconds: Annotated[float, typer.Option(help="Seconds of each measurement.")] = 10,
    only: Annotated[str, typer.Option(help=f"Some of: {','.join(filter(None, NEIGHBOURS.values()))}.")] = "",
    *,
    own_redis: Annotated[bool, typer.Option("--own-redis", help="Give the neighbour a Redis of its own.")] = False,
) -> None:
    """Measure with one neighbour after the other, and print a table."""
    table = Table(title=f"{RATE:.0f} tasks/s on a router, next to another router in the same loop")
    for column in (
        "its neighbour",
        "tasks",
        "p50 ms",
        "p99 ms",
        "× alone",
        "p99 ms, separate",
        "× separate",
        "neighbour's tasks",
        "loop blocked, at most",
    ):
        table.add_column(column, justify="left" if column == "its neighbour" else "right")
    alone = 0.0
    for title, kind in NEIGHBOURS.items():
        if only and kind not in only.split(","):
            continue
        seen, others, longest = beside(kind, seconds, apart=False, own_redis=own_redis)
        p50, p99 = (_percentile(seen, p) for p in (0.5, 0.99))
        apart = _percentile(beside(kind, seconds, apart=True, own_redis=True)[0], 0.99) if kind else p99
        alone = alone or p99
        ratios = (f"{p99 / alone:.1f}", f"{apart:.2f}", f"{p99 / apart:.1f}")
        row = (title, str(len(seen)), f"{p50:.2f}", f"{p99:.2f}", *ratios, str(others), f"{1000 * longest:.0f} ms")
        table.add_row(*row)
        print(*row, file=sys.stderr, flush=True)
    Console(width=150).print(table)


def _percentile(seen: list[float], share: float) -> float:
    """A quantile in milliseconds."""
    return 1000 * seen[int(share * len(seen))]


if __name__ == "__main__":
    app()
