"""The router as the operator embeds it: with as many executors as it is told of, and with a clock that may hurry.

`EXECUTOR_ENDPOINTS` of the worker names 200 at most; an operator's Service may have more. With `HURRY=60` the loop's
clock goes 60 × as fast: an hour of timers passes in a minute. Sockets and other processes do not hurry.
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

HURRY = float(os.environ.get("HURRY", "1"))


class HurriedSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / HURRY)


class HurriedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(HurriedSelector())

    def time(self) -> float:
        return super().time() * HURRY


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
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if HURRY == 1 else HurriedLoop) as runner:
        runner.run(main())
