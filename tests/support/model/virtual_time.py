"""An asyncio loop whose time is virtual: it jumps to the next timer when nothing is ready. There is no I/O in it."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# So many rounds of the loop in one moment are a busy loop, and virtual time would stand still for ever.
MOST_ROUNDS_IN_A_MOMENT = 20_000
# After so many, each takes a microsecond, as it would in reality: a wait may be too short to be added to the time.
FREE_ROUNDS_IN_A_MOMENT = 1_000
ROUND_SECONDS = 1e-6


class TimeStandsStill(Exception):
    """Something keeps the loop busy without waiting for anything. The message says where each task is."""


class _Jump(selectors.SelectSelector):
    """In the place of waiting for I/O: lets the time pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.rounds = 0
        self.interrupts: dict[int, Callable[[], None]] = {}
        self._rounds_now = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.rounds += 1
        if interrupt := self.interrupts.pop(self.rounds, None):
            interrupt()
            return []
        if timeout is None:
            raise TimeStandsStill("nothing is ready, and no timer will ever be")
        if timeout > 0:
            self.now += timeout
            self._rounds_now = 0
        else:
            self._rounds_now += 1
            if self._rounds_now > FREE_ROUNDS_IN_A_MOMENT:
                self.now += ROUND_SECONDS
            if self._rounds_now > MOST_ROUNDS_IN_A_MOMENT:
                raise TimeStandsStill(f"{self._rounds_now} rounds of the loop at {self.now}: {_where()}")
        return []


def _where() -> str:
    frames = [task.get_stack(limit=1) for task in asyncio.all_tasks(asyncio.get_event_loop())]
    return "; ".join(f"{f.f_code.co_qualname}:{f.f_lineno}" for stack in frames for f in stack)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 1000 s. What went wrong in callbacks and forgotten tasks is kept in `broken`."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self.broken: list[str] = []
        self.set_exception_handler(lambda _, context: self.broken.append(f"{context}"))

    def time(self) -> float:
        return self._jump.now

    @property
    def rounds(self) -> int:
        """How often the loop has run what was ready."""
        return self._jump.rounds

    @property
    def interrupts(self) -> int:
        """How many are to come."""
        return len(self._jump.interrupts)

    def interrupt(self, rounds: int, call: Callable[[], None]) -> None:
        """Call it in so many rounds from now, between two of them. No task runs meanwhile."""
        self._jump.interrupts[self.rounds + rounds] = call

    def advance(self, seconds: float) -> None:
        """Run everything that falls due within so many seconds."""
        self.run_until_complete(asyncio.sleep(seconds))

    def cancel_all(self) -> None:
        """End every task; what they do on their way out is run."""
        for _ in range(10):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=30))
