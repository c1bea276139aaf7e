"""The operator's life: whatever it took, it gives back at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from queueworker.controller import app
from queueworker.controller.options import OperatorOptions
from queueworker.controller.registry import Registry

if TYPE_CHECKING:
    import pytest


class Election:
    """Stands in for cluster and elector: the stop comes in the moment in which the Lease is acquired."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.released = 0
        self._stop = stop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def acquire(self) -> None:
        self._stop.set()
        await asyncio.sleep(0)

    async def release(self) -> None:
        self.released += 1


async def test_a_lease_that_is_acquired_in_the_moment_of_the_stop_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()
    election = Election(stop)
    for name in ("Cluster", "Elector"):
        monkeypatch.setattr(app, name, lambda *_args, **_options: election)
    routers: Any = None
    await asyncio.wait_for(app.run_operator(OperatorOptions(), Registry(), stop, lambda: None, routers), 30)
    assert election.released == 1
