"""Trends: what is taken more than usual of late."""

from __future__ import annotations

import numpy as np
import pytest

from models.trends import Trends

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def trends(*counts: tuple[float, float], as_of_ms: int = NOW_MS) -> Trends:
    """The (recent, lasting) counts of rows 0, 1, ... as of one time."""
    found = Trends(2 * DAY_MS, 180 * DAY_MS)
    for row, (recent, lasting) in enumerate(counts):
        found.put(row, recent, lasting, as_of_ms)
    return found


def test_what_is_taken_as_often_as_ever_has_no_trend_however_popular_it_is() -> None:
    factors = trends((1, 100), (10, 1000), (0.1, 10)).factors(np.arange(3), 1.0)
    assert factors.tolist() == pytest.approx([1, 1, 1])


def test_what_is_taken_more_than_usual_is_above_one_and_less_below() -> None:
    rising, usual, falling = trends((30, 1000), (10, 1000), (2, 1000)).factors(np.arange(3), 1.0)
    assert rising > 1.5 > 1 > usual > 0.5 > falling


def test_a_single_act_on_a_new_item_is_hardly_a_trend() -> None:
    usual = [(10.0, 1000.0)] * 50
    once, often = trends(*usual, (1, 1), (20, 20)).factors(np.array([50, 51]), 1.0)
    assert 1 < once < 4
    assert often > 20


def test_counts_are_compared_at_the_newest_time() -> None:
    found = trends((10, 1000), (10, 1000))
    # As much as the others two days later: of theirs half is left, and most of what lasts.
    found.put(2, 10, 1000, NOW_MS + 2 * DAY_MS)
    old, _, new = found.factors(np.arange(3), 1.0)
    expected = 20 / (1000 + 2 * 992.3)
    assert old == pytest.approx((5 + 0.5) / (992.3 * expected + 0.5), rel=1e-3)
    assert new == pytest.approx((10 + 0.5) / (1000 * expected + 0.5), rel=1e-3)
    # No clock: moved as a whole, a log of last year says the same.
    now, then = (
        trends((30, 1000), (10, 1000), as_of_ms=as_of_ms).factors(np.arange(2), 1.0).tolist()
        for as_of_ms in (NOW_MS, NOW_MS - 500 * DAY_MS)
    )
    assert now == then


def test_a_power_softens_it_in_both_directions() -> None:
    found = trends((30, 1000), (10, 1000))
    whole, half = (found.factors(np.arange(2), power) for power in (1.0, 0.5))
    assert half.tolist() == pytest.approx((whole**0.5).tolist())


def test_acts_that_speak_against_an_item_do_not_turn_a_trend_over() -> None:
    factors = trends((-30, 1000), (10, 1000)).factors(np.arange(2), 0.5)
    assert (factors > 0).all()


def test_what_is_not_known_has_no_trend() -> None:
    found = trends((30, 1000), (10, 1000), (5, 0))
    assert found.factors(np.array([2, 999]), 1.0).tolist() == [1, 1]
    assert Trends(1, 1).factors(np.array([0, 3]), 1.0).tolist() == [1, 1]
    assert found.factors(np.array([0]), 1.0)[0] > 1
    for row in (0, 1, 99):
        found.drop(row)
    assert found.factors(np.arange(2), 1.0).tolist() == [1, 1]
