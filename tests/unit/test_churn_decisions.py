"""When a churn risk is published, and under which id."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from builders import NOW_MS

from models.activity import DAY_MS, NO_ACTIVITY, fold_activity
from models.churn import BaselineChurn
from stream.core.churn import (
    AssessedUser,
    BandChange,
    SilenceSchedule,
    Thresholds,
    assessment_window,
    churn_risk,
    decide,
    next_assessment_due,
    next_slice,
)
from stream.messages import ChurnRisk, Trigger, to_message

LIMITS = Thresholds(low=0.4, high=0.7, hysteresis=0.05)
DAY_S = 86_400.0
MODEL = BaselineChurn()
CHANGE = BandChange("high", "medium")


def assessed(user_id: str = "u1", assessed_ms: int = NOW_MS, n_views: int = 1) -> AssessedUser:
    activity = fold_activity(NO_ACTIVITY, "purchase", NOW_MS - 40 * DAY_MS, 25.0)
    for view in range(n_views):
        activity = fold_activity(activity, "view", NOW_MS - 30 * DAY_MS - view)
    assessment = MODEL.predict([activity], assessed_ms, 30.0)[0]
    return AssessedUser(user_id, activity, assessment, assessed_ms, MODEL.name)


def trigger(offset: int) -> Trigger:
    return Trigger(
        topic="clickstream", partition=2, offset=offset, event_id="e1", event_time_ms=NOW_MS
    )


@pytest.mark.parametrize(
    ("probability", "previous", "band"),
    [
        (0.1, None, "low"),
        (0.4, None, "medium"),
        (0.7, None, "medium"),
        (0.9, None, "high"),
        (0.44, "low", None),
        (0.46, "low", "medium"),
        (0.74, "low", "medium"),
        (0.76, "low", "high"),
        (0.36, "medium", None),
        (0.34, "medium", "low"),
        (0.74, "medium", None),
        (0.76, "medium", "high"),
        (0.66, "high", None),
        (0.64, "high", "medium"),
        (0.34, "high", "low"),
    ],
)
def test_a_band_is_left_only_beyond_the_hysteresis(probability, previous, band) -> None:
    change = decide(probability, previous, LIMITS)
    assert change == (None if band is None else BandChange(band, previous))


@pytest.mark.parametrize(
    ("limits", "named"),
    [((0.8, 0.7, 0.0), "churn_low"), ((0.1, 1.7, 0.0), "churn_high"), ((0.4, 0.7, -0.1), "hyster")],
)
def test_thresholds_that_make_no_bands_are_refused(limits, named) -> None:
    with pytest.raises(ValueError, match=named):
        Thresholds(*limits)


def test_a_user_is_due_again_when_the_next_window_starts() -> None:
    window = assessment_window(NOW_MS, DAY_S)
    assert window <= NOW_MS < next_assessment_due(NOW_MS, DAY_S) == window + DAY_MS
    assert next_assessment_due(window, DAY_S) == window + DAY_MS


def test_the_message_says_what_was_assessed_and_why() -> None:
    who = assessed()
    risk = msgspec.json.decode(
        to_message(churn_risk(who, CHANGE, DAY_S, trigger(7))), type=ChurnRisk
    )
    assert (risk.user_id, risk.assessed_ms, risk.horizon_days) == ("u1", NOW_MS, 30.0)
    assert (risk.band, risk.previous_band, risk.model) == ("high", "medium", "churn-baseline-1")
    assert risk.probability == pytest.approx(who.assessment.probability, abs=1e-6)
    assert [driver.feature for driver in risk.drivers] == [
        d.feature for d in who.assessment.drivers
    ]
    assert risk.trigger == trigger(7)


def test_a_first_assessment_has_no_previous_band_and_silence_no_trigger() -> None:
    risk = churn_risk(assessed(), BandChange("high", None), DAY_S)
    assert (risk.previous_band, risk.trigger) == (None, None)


def test_a_repeat_of_the_same_assessment_has_the_same_bytes() -> None:
    assert to_message(churn_risk(assessed(), CHANGE, DAY_S)) == to_message(
        churn_risk(assessed(), CHANGE, DAY_S)
    )


def test_the_timer_says_the_same_whenever_in_the_window_it_runs() -> None:
    start = assessment_window(NOW_MS, DAY_S)
    risks = [
        churn_risk(assessed(assessed_ms=assessment_window(now_ms, DAY_S)), CHANGE, DAY_S)
        for now_ms in (start, start + DAY_MS - 1)
    ]
    assert risks[0] == risks[1]


def test_changes_within_one_window_have_ids_of_their_own() -> None:
    start = assessment_window(NOW_MS, DAY_S)
    who = assessed(assessed_ms=start)
    back = BandChange("medium", "high")
    risks = [
        churn_risk(who, CHANGE, DAY_S),
        churn_risk(who, back, DAY_S),
        churn_risk(who, BandChange("high", None), DAY_S),
        churn_risk(assessed(assessed_ms=start, n_views=2), CHANGE, DAY_S),
        churn_risk(who, CHANGE, DAY_S, trigger(7)),
        churn_risk(who, back, DAY_S, trigger(8)),
        churn_risk(replace(who, user_id="u2"), CHANGE, DAY_S),
        churn_risk(assessed(assessed_ms=start + DAY_MS), CHANGE, DAY_S),
    ]
    assert len({risk.assessment_id for risk in risks}) == len(risks)


# --- the silent ----------------------------------------------------------------------------------

USERS = [(f"u{n:03}".encode(), n) for n in range(100)]


def scan(after: bytes | None, limit: int) -> list[tuple[bytes, int]]:
    return [user for user in USERS if after is None or user[0] > after][:limit]


def test_after_a_delay_the_backlog_is_worked_off_in_small_slices() -> None:
    schedule = SilenceSchedule(assess_s=100, tick_s=10)
    sizes = []
    for elapsed_s in (50, *[10] * 8):
        rows, schedule = next_slice(schedule, len(USERS), elapsed_s, scan)
        sizes.append(len(rows))
    assert max(sizes) == schedule.largest_slice(len(USERS)) == 11
    assert sum(sizes) > 90


def test_a_long_sleep_owes_one_round_not_many() -> None:
    _, schedule = next_slice(SilenceSchedule(100, 10), len(USERS), 1e6, scan)
    assert schedule.owed <= len(USERS)


def test_a_kept_cursor_goes_on_where_it_was() -> None:
    rows, _ = next_slice(SilenceSchedule(100, 10, cursor=b"u041"), len(USERS), 10, scan)
    assert rows[0] == (b"u042", 42)


def test_a_slice_that_meets_the_end_goes_on_at_the_start() -> None:
    rows, _ = next_slice(SilenceSchedule(100, 10, cursor=b"u097"), len(USERS), 10, scan)
    assert [key for key, _ in rows[:4]] == [b"u098", b"u099", b"u000", b"u001"]


def test_an_empty_partition_is_no_work() -> None:
    rows, schedule = next_slice(SilenceSchedule(100, 10), 0, 50, scan)
    assert rows == []
    assert schedule.cursor is None


@pytest.mark.parametrize(("assess_s", "tick_s"), [(10, 0), (10, 11)])
def test_a_tick_fits_into_the_period(assess_s: float, tick_s: float) -> None:
    with pytest.raises(ValueError, match="tick_s"):
        SilenceSchedule(assess_s, tick_s)
