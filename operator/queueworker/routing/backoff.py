"""How long to wait. Pure functions of counts, in seconds; and the gate that makes one queue's callers wait as one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE_STEP_SECONDS = 5.0
QUEUE_CAP_SECONDS = 30.0


def queue_delay(consecutive_errors: int) -> float:
    """5, 10, 15 … 30 s: what the legacy worker waited while the queue could not be reached."""
    return min(QUEUE_STEP_SECONDS * consecutive_errors, QUEUE_CAP_SECONDS)


def exponential(attempt: int, first: float, most: float) -> float:
    """The delay after the attempt of that number (from 1): first, 2·first, 4·first …, at most `most`."""
    return float(min(first * 2 ** min(attempt - 1, 30), most))


class Gate:
    """Closed while the queue cannot be reached; then one caller at a time may try, after a growing delay.

    Callers that find it closed wait in `turn()`. `on_turn` is called when a turn comes up and nobody
    waits for one: whoever may start a request then takes it with `take_turn()`.
    """

    def __init__(self, on_turn: Callable[[], None]) -> None:
        self.consecutive_errors = 0
        self._epoch = 0
        self._turn = False
        self._on_turn = on_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self.consecutive_errors == 0

    @property
    def epoch(self) -> int:
        """Taken before a request and handed to `failed`: of the many requests that one outage breaks, one counts."""
        return self._epoch

    def take_turn(self) -> bool:
        """Whether a request may start now: always when open, once per delay when closed."""
        if self.open:
            return True
        taken, self._turn = self._turn, False
        return taken

    async def turn(self) -> None:
        """Return when a request may start."""
        while not self.take_turn():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._offer()
                raise

    def failed(self, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._epoch += 1
        self.consecutive_errors += 1
        self._schedule(queue_delay(self.consecutive_errors))

    def abandoned(self, epoch: int) -> None:
        """A request that began in that epoch ended without an answer, or never began: its turn is the next one's."""
        if not self.open and epoch == self._epoch and self._timer is None:
            self._offer()

    def hurry(self) -> None:
        """Something changed that makes the next try worth while now."""
        if not self.open:
            self._schedule(0.0)

    def succeeded(self) -> None:
        if self.open:
            return
        self._epoch += 1
        self.consecutive_errors = 0
        self._turn = False
        self.close()
        while self._waiting:
            self._wake()
        self._on_turn()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, delay: float) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._offer()

    def _offer(self) -> None:
        self._turn = True
        if not self._wake():
            self._on_turn()

    def _wake(self) -> bool:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return True
        return False
