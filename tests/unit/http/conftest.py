"""Everything here runs on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop

from queueworker.routing.http.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """Nothing may go wrong behind its back."""
    made, failed = HttpTransport(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    yield made
    await made.close()
    await asyncio.sleep(0)
    assert not failed
