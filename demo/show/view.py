"""The history that the screen shows: rates of the last minute, and for how long something has been down."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo.show.facts import Facts
    from demo.show.show import Show

RATE_SECONDS = 1.0
RATES = 100


@dataclass(slots=True)
class Rates:
    """Tasks a second that were reported to the queue, one number for each of the last seconds."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=RATES))
    _at: float | None = None
    _total: int = 0

    def add(self, at: float, total: int) -> None:
        """`total` is the count until then, `at` in seconds."""
        if self._at is None:
            self._at, self._total = at, total
        elif at - self._at >= RATE_SECONDS:
            self.values.append(max(0, total - self._total) / (at - self._at))
            self._at, self._total = at, total


@dataclass(slots=True)
class View:
    """All that one screen shows. Call `add` with each new observation."""

    show: Show
    facts: Facts
    address: str = ""
    """Where the router's page is; while no router answers, where it was."""
    hint: str = ""
    """A command for another terminal."""
    rates: Rates = field(default_factory=Rates)
    legacy_rates: Rates = field(default_factory=Rates)
    _down: dict[str, float] = field(default_factory=dict)

    def add(self, facts: Facts) -> None:
        self.facts = facts
        if self.show.has_begun:
            self.rates.add(facts.at, facts.reported)
        if self.show.has_begun and facts.legacy is not None:
            self.legacy_rates.add(facts.at, facts.legacy.reported)
        router = facts.router
        if router is not None:
            self.address = f"{router.url}/"
        self._mark("router", facts.at, up=router is not None)
        self._mark("queue", facts.at, up=facts.queue_answers and (router is None or router.queue is not False))
        if router is not None:
            self._mark("Redis", facts.at, up=router.redis is not False)

    def down(self, name: str) -> float | None:
        """For how many seconds it has been down; None if it is up."""
        since = self._down.get(name)
        return None if since is None else self.facts.at - since

    def _mark(self, name: str, at: float, *, up: bool) -> None:
        if up:
            self._down.pop(name, None)
        else:
            self._down.setdefault(name, at)
