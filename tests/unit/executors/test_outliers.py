"""Which failures eject an executor, for how long, and how many executors at most."""

from __future__ import annotations

import pytest

from queueworker.routing.executors import outliers
from queueworker.routing.executors.outliers import FailureHistory


def test_each_ejection_is_longer_up_to_a_limit_and_time_without_one_makes_the_next_shorter() -> None:
    history, now = FailureHistory(), 1000.0
    lengths = []
    for _ in range(40):
        lengths.append(history.eject(now))
        now += lengths[-1]
        history.returned(now)
    assert lengths[:3] == [10, 20, 30]
    assert lengths[-1] == outliers.MAX_EJECTION_SECONDS
    assert history.eject(now + 10_000) == 10


def test_one_failure_is_enough_after_a_return_and_five_are_at_first() -> None:
    history = FailureHistory()
    assert [history.failed() for _ in range(5)] == [False] * 4 + [True]
    history.returned(50.0)
    assert history.failed()


@pytest.mark.parametrize(("sound", "most"), [(0, 0), (1, 0), (2, 1), (3, 1), (8, 4)])
def test_at_most_half_of_the_sound_executors_are_ejected(sound: int, most: int) -> None:
    assert outliers.max_ejected(sound) == most


def test_a_slot_cools_down_until_a_task_is_usually_done_unless_most_executors_fail_their_tasks() -> None:
    assert outliers.slot_cooldown(took=0.1, usual=5.0, failing=1, healthy=4) == 4.9
    assert outliers.slot_cooldown(took=6.0, usual=5.0, failing=1, healthy=4) == 0
    assert outliers.slot_cooldown(took=0.1, usual=5.0, failing=3, healthy=4) == 0
