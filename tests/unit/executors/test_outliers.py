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


def outlier(*outcomes: bool) -> str:
    """Why an executor with these outcomes is an outlier; True is a failure."""
    history = FailureHistory()
    for failure in outcomes:
        history.failed() if failure else history.gave_a_result()
    return history.reason


def test_one_failure_is_enough_after_a_return_and_five_are_at_first() -> None:
    assert outlier(*[True] * 4) == ""
    assert outlier(*[True] * 5) == "5 failures in a row"
    history = FailureHistory()
    history.returned(50.0)
    assert history.reason == ""
    history.failed()
    assert history.reason == "5 failures in a row"


def test_more_than_half_of_the_last_ten_outcomes_make_an_outlier_that_never_fails_five_in_a_row() -> None:
    four_of_five = [True, True, True, True, False]
    assert outlier(*four_of_five, True) == ""
    assert outlier(*four_of_five, True, True) == "6 failures among the last 10 tasks"
    assert outlier(*[True, False] * 20) == "", "half of them"
    assert outlier(*four_of_five, True, True, *[False] * 3, *[False]) == "", "it does better"


@pytest.mark.parametrize(("sound", "most"), [(0, 0), (1, 0), (2, 1), (3, 1), (8, 4)])
def test_at_most_half_of_the_sound_executors_are_ejected(sound: int, most: int) -> None:
    assert outliers.max_ejected(sound) == most


def test_a_slot_cools_down_until_a_task_is_usually_done_unless_most_executors_fail_their_tasks() -> None:
    assert outliers.slot_cooldown(took=0.1, usual=5.0, failing=1, healthy_count=4) == 4.9
    assert outliers.slot_cooldown(took=6.0, usual=5.0, failing=1, healthy_count=4) == 0
    assert outliers.slot_cooldown(took=0.1, usual=5.0, failing=3, healthy_count=4) == 0
