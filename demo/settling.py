"""The end of the demo: no more tasks come in, those under way end, and all are counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from demo.account import Account, announced_losses, stored, stored_ids
from demo.show.acts import TAKEOVER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from demo.stage import Observer, Platform

SETTLE_SECONDS = 300.0
NO_PROGRESS_SECONDS = 60.0
IDLE_SECONDS = 3.0
"""Time without anything to do after which nothing more is expected."""
LEGACY_SECONDS = 20.0
POLL_SECONDS = 0.25


def settle(platform: Platform, observer: Observer, kills: Sequence[float], console: Console) -> Account:
    """Stop the load, and wait until every task has an outcome, or until nothing is under way any more."""
    console.print("stopping the load and waiting for the tasks in flight")
    line = platform.line
    submitted = line.stop_load()
    _wait(submitted, observer, kills)
    outcomes = stored_ids(platform.database, line.prefix)
    actions = line.actions.read_bytes().splitlines()
    counts = observer.queue_account(line)
    return Account(
        submitted=submitted,
        routed=counts.completed + counts.failed,
        stored=stored(platform.database, line.prefix),
        lost=submitted - len(outcomes),
        announced=len(announced_losses(actions, kills, outcomes)),
    )


def _wait(submitted: int, observer: Observer, kills: Sequence[float]) -> None:
    now = time.monotonic()
    deadline, progress_at, total = now + SETTLE_SECONDS, now, -1
    # A router that was killed has tasks that its successor has not found yet: they look like lost ones until then.
    busy_at = max([now, *(kill + TAKEOVER_SECONDS for kill in kills)])
    while total < submitted and now < min(deadline, progress_at + NO_PROGRESS_SECONDS, busy_at + IDLE_SECONDS):
        time.sleep(POLL_SECONDS)
        facts = observer.observe()
        now = facts.at
        if facts.stored.total > total:
            total, progress_at = facts.stored.total, now
        if not facts.idle:
            busy_at = max(busy_at, now)


def settle_legacy(platform: Platform, observer: Observer, console: Console) -> None:
    """Give the legacy loop some time for what it has, and print what it lost."""
    assert platform.legacy is not None
    line, worker = platform.legacy
    console.print(f"waiting for the legacy loop, {LEGACY_SECONDS:.0f} s at most")
    submitted = line.stop_load()
    deadline = time.monotonic() + LEGACY_SECONDS
    while time.monotonic() < deadline and stored(platform.database, line.prefix).total < submitted:
        time.sleep(POLL_SECONDS)
    worker.stop()
    counts = observer.queue_account(line)
    total = stored(platform.database, line.prefix).total
    waiting = submitted - counts.handed_out
    console.print(
        f"legacy loop: submitted={submitted} waiting={waiting} stored={total} lost={counts.handed_out - total}"
    )
