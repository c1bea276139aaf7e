"""Where a router stands between its start and its end: from the object's intent, and from what is still in flight."""

from __future__ import annotations

import asyncio

from queueworker.routing.aio import happens
from queueworker.routing.config import Intent
from queueworker.routing.snapshot import Phase


class Lifecycle:
    """STARTING → ROUTING ⇄ DRAINING ⇄ IDLE, then DRAINING → STOPPED for good."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.started = False
        self.stopping = False
        self.drained = asyncio.Event()
        """The router is stopping, and nothing is in flight."""
        self.stopped = asyncio.Event()

    @property
    def routing(self) -> bool:
        return self.phase is Phase.ROUTING

    def settle(self, intent: Intent, *, busy: bool) -> bool:
        """Work the phase out anew. Returns whether it changed."""
        if self.stopping:
            phase = Phase.DRAINING
            if not busy:
                self.drained.set()
        elif intent is Intent.ROUTE:
            phase = Phase.ROUTING
        else:
            phase = Phase.DRAINING if busy else Phase.IDLE
        changed, self.phase = phase is not self.phase, phase
        return changed

    async def drained_within(self, seconds: float) -> None:
        """Return when the router has drained, or after so many seconds."""
        await happens(self.drained, seconds)

    def end(self) -> None:
        self.phase = Phase.STOPPED
        self.stopped.set()
