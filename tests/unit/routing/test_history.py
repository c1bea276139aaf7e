"""The points of a router's plots, and its latencies."""

from __future__ import annotations

from itertools import pairwise

import pytest

from queueworker.routing.counters import BUCKETS_SECONDS, Counters, Histogram, quantile
from queueworker.routing.history import POINT_SECONDS, POINTS, History, Series


def observed(*seconds: float) -> list[int]:
    histogram = Histogram()
    for value in seconds:
        histogram.observe(value)
    return histogram.counts


def test_a_quantile_lies_in_the_bucket_of_that_observation() -> None:
    assert quantile(observed(), 0.5) is None
    assert quantile(observed(0.2, 0.2, 0.2, 7), 0.5) == pytest.approx(0.1 + 0.15 * 2 / 3)
    assert 5 < (quantile(observed(0.2, 0.2, 0.2, 7), 0.95) or 0) <= 10
    assert quantile(observed(10**6), 0.5) == BUCKETS_SECONDS[-1], "above the last bound"


def sampled(history: History, now: float) -> None:
    if history.sample(now):
        history.add(now, 3, 4)


def test_a_point_is_taken_every_five_seconds_and_tells_the_rate_of_a_minute() -> None:
    counters = Counters()
    history = History(counters)
    for second in range(31):
        sampled(history, float(second))
        counters.completed += 2
        counters.failed += 1
    assert history.points == 30 / POINT_SECONDS
    assert history.newest(Series.COMPLETED) == [120.0] * 6
    assert history.newest(Series.FAILED, 2) == [60.0, 60.0]
    assert (history.newest(Series.IN_USE, 1), history.newest(Series.CAPACITY, 1)) == ([3], [4])
    assert history.newest(Series.P95, 1) == [None], "no task ended"
    assert (history.per_minute, history.failed_per_minute) == (93, 31)


def test_points_that_were_missed_are_gaps_and_the_next_one_tells_the_rate_since_the_last() -> None:
    counters = Counters()
    history = History(counters)
    for second in (0, 5):
        sampled(history, float(second))
    counters.completed = 30
    sampled(history, 20.0)
    assert history.newest(Series.COMPLETED) == [0.0, None, None, 120.0]


def test_latencies_are_those_of_the_last_minute() -> None:
    counters = Counters()
    history = History(counters)
    counters.execution.observe(7)
    for second in range(0, 60, 5):
        sampled(history, float(second))
    assert (history.p50_seconds or 0) > 5
    for second in range(60, 130, 5):
        counters.execution.observe(0.2)
        sampled(history, float(second))
    assert (history.p50_seconds or 9) < 0.25
    assert (history.p95_seconds or 9) <= 0.25


def test_the_ring_keeps_ten_minutes_in_their_order() -> None:
    counters = Counters()
    history = History(counters)
    for point in range(POINTS + 50):
        counters.completed += point
        sampled(history, point * POINT_SECONDS)
    rates = [rate or 0 for rate in history.newest(Series.COMPLETED)]
    assert len(rates) == POINTS
    assert all(later > earlier for earlier, later in pairwise(rates))
    assert history.points == POINTS + 49
