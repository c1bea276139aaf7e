"""One backoff for all callers of one queue, so that an outage is probed by one request at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from queueworker.routing.backoff import queue_delay

if TYPE_CHECKING:
    from collections.abc import Callable


class SharedBackoff:
    """While the queue cannot be reached, one caller at a time may try, after a growing delay.

    Other callers wait in `acquire()`. `on_turn` is called when a try is due and nobody waits for it: whoever may start
    a request then takes it with `try_acquire()`.
    """

    def __init__(self, on_turn: Callable[[], None]) -> None:
        self.consecutive_errors = 0
        self._epoch = 0
        self._due = False
        """A try is due, and nobody has taken it yet."""
        self._on_turn = on_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def healthy(self) -> bool:
        return self.consecutive_errors == 0

    @property
    def epoch(self) -> int:
        """Read it before a request and hand it to `failed`: of the requests that one outage breaks, one counts."""
        return self._epoch

    def try_acquire(self) -> bool:
        """Whether a request may start now: always while healthy, else once per delay."""
        if self.healthy:
            return True
        acquired, self._due = self._due, False
        return acquired

    async def acquire(self) -> None:
        """Return when a request may start."""
        while not self.try_acquire():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._offer()
                raise

    def failed(self, epoch: int) -> None:
        """A request that began in that epoch did not reach the queue."""
        if epoch != self._epoch:
            return
        self._epoch += 1
        self.consecutive_errors += 1
        self._schedule(queue_delay(self.consecutive_errors))

    def abandoned(self, epoch: int) -> None:
        """A request that began in that epoch ended without an answer, or never began: the next caller may try."""
        if not self.healthy and epoch == self._epoch and self._timer is None:
            self._offer()

    def retry_now(self) -> None:
        """Something changed that makes the next try worthwhile now."""
        if not self.healthy:
            self._schedule(0.0)

    def succeeded(self) -> None:
        """The queue answered."""
        if self.healthy:
            return
        self._epoch += 1
        self.consecutive_errors = 0
        self._due = False
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
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._offer()

    def _offer(self) -> None:
        self._due = True
        if not self._wake():
            self._on_turn()

    def _wake(self) -> bool:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return True
        return False
