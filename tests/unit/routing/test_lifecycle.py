"""Phases of a router, and how many tasks it reports a minute."""

from __future__ import annotations

import pytest

from queueworker.routing.config import Intent
from queueworker.routing.history import PerMinute
from queueworker.routing.lifecycle import Lifecycle
from queueworker.routing.snapshot import Phase


@pytest.mark.parametrize(
    ("intent", "busy", "phase"),
    [
        (Intent.ROUTE, False, Phase.ROUTING),
        (Intent.ROUTE, True, Phase.ROUTING),
        (Intent.STANDBY, True, Phase.DRAINING),
        (Intent.STANDBY, False, Phase.IDLE),
        (Intent.SUSPEND, True, Phase.DRAINING),
        (Intent.SUSPEND, False, Phase.IDLE),
    ],
)
def test_the_phase_follows_the_intent_and_what_is_in_flight(intent: Intent, busy: bool, phase: Phase) -> None:
    life = Lifecycle()
    assert life.settle(intent, busy=busy)
    assert life.phase is phase
    assert not life.settle(intent, busy=busy), "nothing changed"
    assert not life.drained.is_set()


def test_a_router_that_stops_drains_and_then_has_drained() -> None:
    life = Lifecycle()
    life.settle(Intent.ROUTE, busy=True)
    life.stopping = True
    assert life.settle(Intent.ROUTE, busy=True)
    assert (life.phase, life.drained.is_set()) == (Phase.DRAINING, False)
    life.settle(Intent.ROUTE, busy=False)
    assert life.drained.is_set()
    life.end()
    assert life.phase is Phase.STOPPED
    assert life.stopped.is_set()


def test_the_rate_is_the_growth_of_the_last_minute() -> None:
    rate = PerMinute()
    assert rate.of(5) == 0
    for second in range(200):
        rate.sample(float(second), 10 * second)
    assert rate.of(1990) == 600
    rate.sample(1000.0, 1990)
    assert rate.of(1990) == 0
