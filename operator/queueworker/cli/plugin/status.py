"""`status`: reads one object and what the operator says of it, once or until a condition holds."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueworker import __version__
from queueworker.cli.plugin import objects
from queueworker.cli.plugin.api import Api, Refused
from queueworker.cli.plugin.checks import look
from queueworker.cli.plugin.live import Operator
from queueworker.cli.plugin.problems import Problem
from queueworker.cli.plugin.view import view

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.cli.plugin.access import Access
    from queueworker.cli.plugin.values import View

WAIT_SECONDS = 1.0


async def read_view(api: Api, operator: Operator, name: str | None) -> View:
    """The object as it is now. Raises Problem."""
    body, live = await asyncio.gather(objects.the_only_one(api, name), look(api, operator))
    return view(body, live, datetime.now(UTC), version=__version__)


async def read_views(api: Api, operator: Operator, *, everywhere: bool) -> list[View]:
    """All objects of the namespace, or of all namespaces."""
    bodies, live = await asyncio.gather(objects.some(api, everywhere=everywhere), look(api, operator))
    now = datetime.now(UTC)
    return [view(body, live, now, version=__version__) for body in bodies]


async def status(access: Access, name: str | None) -> list[View]:
    async with Api(access) as api:
        operator = Operator(api, access.operator)
        if access.all_namespaces:
            return await read_views(api, operator, everywhere=True)
        return [await read_view(api, operator, name)]


async def wait(
    access: Access, name: str | None, wanted: str, timeout: float, *, clock: Callable[[], float] = time.monotonic
) -> View:
    """Returns as soon as the condition is `wanted`. Raises Problem after `timeout` seconds."""
    condition, _, value = wanted.partition("=")
    deadline = clock() + timeout
    async with Api(access) as api:
        operator = Operator(api, access.operator)
        while True:
            body = await _unless_absent(objects.the_only_one(api, name))
            if body is not None and holds(body, condition, value or "True"):
                return await read_view(api, operator, name)
            if clock() >= deadline:
                raise Problem(f"{wanted} did not hold within {timeout:.0f} s: {_last(body, condition)}")
            await asyncio.sleep(min(WAIT_SECONDS, max(0.0, deadline - clock())))


async def _unless_absent(work: Any) -> dict[str, Any] | None:
    """None while the API server is away or the object does not exist yet."""
    try:
        found: dict[str, Any] = await work
    except Refused as error:
        if error.status in {401, 403}:
            raise
        return None
    except Problem:
        return None
    return found


def holds(body: dict[str, Any], condition: str, value: str) -> bool:
    """Whether the condition has the value, for the present generation of the spec."""
    found = _condition(body, condition)
    if found is None or found.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return False
    return str(found.get("status")).lower() == value.lower() or str(found.get("reason")).lower() == value.lower()


def _last(body: dict[str, Any] | None, condition: str) -> str:
    if body is None:
        return "there is no such object, or the API server cannot be reached"
    found = _condition(body, condition)
    if found is None:
        return f"the object has no condition {condition} yet"
    return f"{found['type']} is {found['status']} ({found['reason']}): {found.get('message', '')}"


def _condition(body: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    conditions: list[dict[str, Any]] = (body.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"].lower() == wanted.lower()), None)
