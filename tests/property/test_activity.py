"""Activity: the same numbers in any arrival order, and exactly what was stored."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.activity import (
    DAY_MS,
    NO_ACTIVITY,
    WINDOW_DAYS,
    Activity,
    fold_activity,
)

KINDS = ("impression", "view", "click", "purchase", "dislike", "search", "review")


@dataclass(frozen=True)
class Act:
    kind: str
    event_time_ms: int
    price: float | None = None
    quantity: float | None = None
    rating: float | None = None


def fold_all(acts: list[Act]) -> Activity:
    activity = NO_ACTIVITY
    for act in acts:
        activity = fold_activity(activity, *astuple(act))
    return activity


# A few days, so that occasions coincide; now and then years apart, so that the window moves.
times = st.one_of(
    st.integers(20_000 * DAY_MS, 20_010 * DAY_MS), st.integers(15_000 * DAY_MS, 20_010 * DAY_MS)
)
acts = st.lists(
    st.builds(
        Act,
        st.sampled_from(KINDS),
        times,
        st.none() | st.floats(0, 1e6),
        st.none() | st.floats(0.1, 100),
        st.none() | st.floats(1, 5),
    ),
    max_size=30,
)


@given(acts, st.randoms())
def test_arrival_order_does_not_matter(batch: list[Act], random) -> None:
    shuffled = random.sample(batch, len(batch))
    one, other = fold_all(batch), fold_all(shuffled)
    assert one.purchase_days == other.purchase_days
    np.testing.assert_allclose(one[:-1], other[:-1], rtol=1e-9, atol=1e-9)


@given(acts)
def test_purchase_occasions_are_the_distinct_days_of_the_window(batch: list[Act]) -> None:
    days = {act.event_time_ms // DAY_MS for act in batch if act.kind == "purchase"}
    within = {day for day in days if day > max(days) - WINDOW_DAYS}
    activity = fold_all(batch)
    assert activity.n_purchase_days == len(within)
    assert activity.purchase_span_days == (max(within) - min(within) if within else 0)


@given(acts)
def test_times_and_sums_are_those_of_the_acts(batch: list[Act]) -> None:
    activity = fold_all(batch)
    own = [act for act in batch if act.kind != "impression"]
    bought = [act for act in own if act.kind == "purchase"]
    assert activity.n_acts == len(own)
    assert activity.n_purchases == len(bought)
    assert activity.first_ms == min((act.event_time_ms for act in own), default=0)
    assert activity.last_ms == max((act.event_time_ms for act in own), default=0)
    assert activity.last_purchase_ms == max((act.event_time_ms for act in bought), default=0)
    priced = [act for act in bought if act.price is not None]
    spend = sum(act.price * (1 if act.quantity is None else act.quantity) for act in priced)
    assert activity.n_priced == len(priced)
    assert activity.spend == pytest.approx(spend)


def test_the_lines_of_one_order_are_one_occasion() -> None:
    order = [Act("purchase", 20_000 * DAY_MS + line, price=2.0) for line in range(10)]
    activity = fold_all(order)
    assert (activity.n_purchases, activity.n_purchase_days, activity.spend) == (10, 1, 20.0)


def test_an_act_a_half_life_ago_counts_half_in_the_short_sum() -> None:
    activity = fold_all([Act("view", 20_000 * DAY_MS), Act("view", 20_007 * DAY_MS)])
    assert activity.short_acts == pytest.approx(1.5)
    assert activity.long_acts == pytest.approx(1 + 0.5 ** (7 / 60))


def test_a_rating_counts_from_minus_one_to_one() -> None:
    activity = fold_all([Act("review", DAY_MS, rating=1), Act("review", DAY_MS, rating=4)])
    assert (activity.satisfaction, activity.n_ratings) == (-0.5, 2)
