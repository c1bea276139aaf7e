"""The end of the demo: no more tasks come in, those under way end, and all are counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from demo.account import stored
from demo.show.acts import TAKEOVER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from demo.local import Observer, Parts
    from demo.show.facts import Facts

SETTLE_SECONDS = 300.0
NO_PROGRESS_SECONDS = 60.0
IDLE_SECONDS = 3.0
"""Time without anything to do after which nothing more is expected."""
LEGACY_SECONDS = 20.0
POLL_SECONDS = 0.25


class Settling:
    """Decides when nothing more is expected. `kills` are the times when the router was killed."""

    def __init__(self, kills: Sequence[float], began: float) -> None:
        self._began = began
        # A router that was killed has tasks that its successor has not found yet: they look like lost ones until then.
        self._busy_at = max([began, *(kill + TAKEOVER_SECONDS for kill in kills)])
        self._progress_at = began
        self._total = -1

    def is_done(self, facts: Facts, submitted: int) -> bool:
        """Every task has an outcome; or nobody works on one any more; or it takes too long."""
        if facts.stored.total > self._total:
            self._total, self._progress_at = facts.stored.total, facts.at
        if not facts.idle:
            self._busy_at = max(self._busy_at, facts.at)
        return (
            facts.stored.total >= submitted
            or facts.at - self._busy_at >= IDLE_SECONDS
            or facts.at - self._progress_at >= NO_PROGRESS_SECONDS
            or facts.at - self._began >= SETTLE_SECONDS
        )


def settle_legacy(parts: Parts, observer: Observer, console: Console) -> None:
    """Give the legacy loop some time for what it has, and print what it lost."""
    assert parts.legacy is not None
    line, worker = parts.legacy
    console.print(f"waiting for the legacy loop, {LEGACY_SECONDS:.0f} s at most")
    submitted = line.stop_load()
    now = progress_at = time.monotonic()
    deadline, total, counts = now + LEGACY_SECONDS, -1, observer.queue_counts(line)
    while now < deadline and (counts.handed_out < submitted or now < progress_at + IDLE_SECONDS) and total < submitted:
        time.sleep(POLL_SECONDS)
        now, counts, before = time.monotonic(), observer.queue_counts(line), total
        total = stored(parts.database, line.prefix).total
        if total > before:
            progress_at = now
    worker.stop()
    waiting = submitted - counts.handed_out
    console.print(
        f"legacy loop: submitted={submitted} waiting={waiting} stored={total} lost={counts.handed_out - total}"
    )
