"""The router as the operator embeds it: with any number of executors, and with a clock that may be sped up.

A worker's `EXECUTOR_ENDPOINTS` has at most 200 URLs; a Service in a cluster may have more endpoints. With `SPEEDUP=60`
the loop's clock runs 60 times as fast, so an hour of timers takes a minute. Sockets and other processes keep their
speed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import selectors

import uvloop

from queueworker.processes.environment import load
from queueworker.processes.signals import StopSignals
from queueworker.routing.config import Endpoint
from queueworker.routing.router import Router

SPEEDUP = float(os.environ.get("SPEEDUP", "1"))


class FastSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / SPEEDUP)


class FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(FastSelector())

    def time(self) -> float:
        return super().time() * SPEEDUP


async def main() -> None:
    environment = dict(os.environ)
    urls = environment.pop("EXECUTOR_ENDPOINTS").split(",")
    settings = load(environment)
    endpoints = [Endpoint(url.partition("://")[2], url) for url in urls]
    router = Router(settings.config, endpoints, worker_id=settings.process.worker_id)
    with StopSignals(lambda _: None) as signals:
        routing = asyncio.create_task(router.run())
        await signals.stopped.wait()
        await router.stop()
        await routing


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if SPEEDUP == 1 else FastLoop) as runner:
        runner.run(main())
