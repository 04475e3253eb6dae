"""Churn, for every customer: time can only raise the risk, bands do not flap, slices are small."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.activity import DAY_MS, NO_ACTIVITY, Activity, fold_activity
from models.churn import BaselineChurn
from stream.core.churn import SilenceSchedule, Thresholds, decide, next_slice

NOW_DAY = 20_000
MODEL = BaselineChurn()

acts = st.lists(
    st.tuples(
        st.sampled_from(["view", "purchase", "dislike", "search"]),
        st.integers((NOW_DAY - 400) * DAY_MS, NOW_DAY * DAY_MS),
    ),
    max_size=25,
)


def fold_all(batch: list[tuple[str, int]]) -> Activity:
    activity = NO_ACTIVITY
    for kind, event_time_ms in batch:
        activity = fold_activity(activity, kind, event_time_ms)
    return activity


def risk(activity: Activity, now_ms: int, horizon_days: float = 30.0) -> float:
    return MODEL.predict([activity], now_ms, horizon_days)[0].probability


@given(acts, st.lists(st.integers(0, 1000 * DAY_MS), min_size=2, max_size=6))
def test_longer_silence_never_lowers_the_risk(
    batch: list[tuple[str, int]], silences: list[int]
) -> None:
    activity = fold_all(batch)
    risks = [risk(activity, NOW_DAY * DAY_MS + silence) for silence in sorted(silences)]
    assert all(later >= sooner - 1e-12 for sooner, later in pairwise(risks))


@given(acts, st.floats(0.5, 1000), st.floats(0.5, 1000))
def test_a_longer_horizon_never_raises_the_risk(
    batch: list[tuple[str, int]], one: float, other: float
) -> None:
    activity, now_ms = fold_all(batch), NOW_DAY * DAY_MS
    short, long = sorted((one, other))
    assert risk(activity, now_ms, long) <= risk(activity, now_ms, short) + 1e-12


@given(acts)
def test_of_those_who_only_buy_a_purchase_now_never_raises_the_risk(
    batch: list[tuple[str, int]],
) -> None:
    # Without prices: that an order is small may say more than that there is one.
    now_ms = NOW_DAY * DAY_MS
    before = fold_all([("purchase", event_time_ms) for _, event_time_ms in batch])
    after = fold_activity(before, "purchase", now_ms)
    assert risk(after, now_ms) <= risk(before, now_ms) + 1e-12


unit = st.floats(0, 1)
thresholds = st.builds(
    lambda a, b, hysteresis: Thresholds(min(a, b), max(a, b), hysteresis), unit, unit, unit
)
bands = st.sampled_from([None, "low", "medium", "high"])


@given(unit, bands, thresholds)
def test_deciding_again_changes_nothing(probability, previous, limits) -> None:
    change = decide(probability, previous, limits)
    band = previous if change is None else change.band
    assert decide(probability, band, limits) is None


@given(bands, thresholds, st.data())
def test_wandering_within_the_hysteresis_changes_a_band_at_most_once(
    previous, limits, data
) -> None:
    border = data.draw(st.sampled_from([limits.low, limits.high]))
    # Twice the hysteresis wide would be crossed; once is not.
    near = st.floats(border - limits.hysteresis / 2, border + limits.hysteresis / 2)
    changes = 0
    band = previous or "medium"
    for probability in data.draw(st.lists(near, max_size=20)):
        change = decide(probability, band, limits)
        changes += change is not None
        band = band if change is None else change.band
    # From the far side of the other border one change may be due, never one back.
    assert changes <= 1


def slices(n_users: int, assess_s: float, tick_s: float, n_ticks: int) -> list[list[bytes]]:
    users = [(f"{n:06}".encode(), n) for n in range(n_users)]

    def scan(after: bytes | None, limit: int) -> list[tuple[bytes, int]]:
        start = 0 if after is None else int(after) + 1
        return users[start : start + limit]

    schedule, made = SilenceSchedule(assess_s, tick_s), []
    for _ in range(n_ticks):
        rows, schedule = next_slice(schedule, n_users, tick_s, scan)
        made.append([key for key, _ in rows])
    return made


@settings(max_examples=60)
@given(st.integers(0, 300), st.integers(1, 60))
def test_every_user_is_visited_once_per_period_and_no_tick_visits_many(
    n_users: int, ticks_per_period: int
) -> None:
    tick_s = 7.0
    made = slices(n_users, ticks_per_period * tick_s, tick_s, 4 * ticks_per_period)
    assert all(len(keys) <= ceil(n_users / ticks_per_period) + 1 for keys in made)
    assert all(len(set(keys)) == len(keys) for keys in made)
    for start in range(3 * ticks_per_period + 1):
        visited = {key for keys in made[start : start + ticks_per_period] for key in keys}
        assert len(visited) == n_users


@pytest.mark.parametrize("n_users", [1, 86_400 // 60])
def test_few_users_are_not_visited_at_every_tick(n_users: int) -> None:
    made = slices(n_users, 86_400.0, 1.0, 3600)
    assert sum(map(len, made)) <= ceil((n_users + 1) / 24)
