"""Starts routers for tests, and ends them whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from queueworker.controller.status import Totals
from queueworker.controller.supervisor import RouterSupervisor
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Endpoint, RouterConfig
from queueworker.routing.limits import Limits
from queueworker.routing.router import Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from queueworker.routing.memory_budget import MemoryBudget
    from queueworker.routing.tracer import Tracer
    from tests.support.stubs import StubExecutor, StubQueue

GROUP = "default/legacy"
BASE = f"queueworker:{{{GROUP}}}:"
"""The beginning of the group's keys in Redis."""


def config(queue: StubQueue, redis_url: str, *, group: str = GROUP, **spec: Any) -> RouterConfig:
    """`spec` holds parts of the object's spec, in its own spelling."""
    spec["queue"] = {"url": queue.url} | spec.get("queue", {})
    return RouterConfig(group, QueueWorkerSpec.model_validate(spec), redis_url, queue.key)


def endpoints(pool: Sequence[StubExecutor]) -> list[Endpoint]:
    return [Endpoint(executor.name, executor.url) for executor in pool]


@asynccontextmanager
async def running(
    queue: StubQueue,
    pool: Sequence[StubExecutor],
    redis_url: str,
    *,
    group: str = GROUP,
    limits: Limits | None = None,
    budget: MemoryBudget | None = None,
    tracer: Tracer | None = None,
    **spec: Any,
) -> AsyncIterator[Router]:
    """A router that routes; drained at the end of the block."""
    configured = config(queue, redis_url, group=group, **spec)
    router = Router(
        *(configured, endpoints(pool)),
        worker_id="worker-1",
        limits=limits or Limits(),
        budget=budget,
        tracer=tracer,
    )
    run = asyncio.create_task(router.run())
    try:
        yield router
    finally:
        await router.stop()
        await run


@asynccontextmanager
async def supervised() -> AsyncIterator[RouterSupervisor]:
    """The supervisor of an object's routers; `drive` makes it start one. The last router is drained at the end."""
    supervisor = RouterSupervisor("worker-1", lambda: None, Totals(), factory=Router)
    try:
        yield supervisor
    finally:
        await supervisor.stop(final=False)
