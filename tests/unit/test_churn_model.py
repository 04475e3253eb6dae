"""BaselineChurn: who is at risk, and why."""

from __future__ import annotations

import math

import pytest
from builders import NOW_MS

from models.activity import DAY_MS, NO_ACTIVITY, Activity, fold_activity
from models.churn import ONLINE_RETAIL_SHIFT, Assessment, BaselineChurn

HORIZON = 30.0


def customer(*purchase_days_ago: float, price: float | None = 50.0) -> Activity:
    activity = NO_ACTIVITY
    for days in purchase_days_ago:
        activity = fold_activity(activity, "purchase", NOW_MS - int(days * DAY_MS), price)
    return activity


def assess(activity: Activity, horizon_days: float = HORIZON) -> Assessment:
    return BaselineChurn().predict([activity], NOW_MS, horizon_days)[0]


def risk(activity: Activity) -> float:
    return assess(activity).probability


def features(activity: Activity) -> dict[str, float]:
    return {driver.feature: driver.value for driver in assess(activity).drivers}


RATED = fold_activity(customer(200, 90, 40), "review", NOW_MS, rating=2)
EVERY_FEATURE = fold_activity(fold_activity(RATED, "view", NOW_MS), "dislike", NOW_MS)


@pytest.mark.parametrize(
    "activity",
    [NO_ACTIVITY, customer(3), customer(400, 300, 1), EVERY_FEATURE],
    ids=["nothing known", "bought once", "long gaps", "every feature"],
)
def test_contributions_add_up_to_the_log_odds(activity: Activity) -> None:
    assessment = assess(activity)
    log_odds = math.log(assessment.probability / (1 - assessment.probability))
    total = BaselineChurn().base + sum(driver.contribution for driver in assessment.drivers)
    assert log_odds == pytest.approx(total)


def test_drivers_come_largest_first() -> None:
    sizes = [abs(driver.contribution) for driver in assess(EVERY_FEATURE).drivers]
    assert sizes == sorted(sizes, reverse=True)


def test_drivers_are_in_units_a_person_reads() -> None:
    found = features(customer(100, 60, 20, price=30))
    assert found["frequency"] == 3
    assert found["gap"] == pytest.approx((80 + 60) / 3)
    assert found["recency_in_gaps"] == pytest.approx(20 / found["gap"])
    assert found["order_value"] == pytest.approx(30)
    assert found["horizon"] == HORIZON
    assert found["silence"] == pytest.approx(20)


def test_what_is_not_known_is_not_a_driver() -> None:
    optional = {"order_value", "satisfaction", "dislikes", "activity_trend", "never_bought"}
    assert not optional & set(features(customer(20, price=None)))


def test_an_order_is_valued_whole_however_many_lines_it_has() -> None:
    order = customer(40, 40, 40, 10, price=10)
    assert features(order)["order_value"] == pytest.approx(20)


def test_order_value_does_not_grow_with_the_years() -> None:
    once_a_month = customer(*range(1500, 0, -30), price=50)
    assert features(once_a_month)["order_value"] == pytest.approx(50, rel=0.05)


def test_more_orders_mean_less_risk() -> None:
    assert risk(customer(110, 80, 50, 20)) < risk(customer(110, 20)) < risk(customer(20))


def test_the_regular_customer_who_stays_away_is_at_more_risk_than_the_rare_one() -> None:
    rise = [
        assess(customer(*days)).drivers for days in ((130, 120, 110, 100), (700, 500, 300, 100))
    ]
    weekly, rare = ({driver.feature: driver.contribution for driver in drivers} for drivers in rise)
    assert weekly["recency_in_gaps"] > rare["recency_in_gaps"]


def test_large_orders_mean_less_risk() -> None:
    assert (
        risk(customer(40, price=200)) < risk(customer(40, price=50)) < risk(customer(40, price=5))
    )


def test_browsing_after_the_last_purchase_lowers_the_risk() -> None:
    quiet = customer(80)
    assert risk(fold_activity(quiet, "view", NOW_MS - DAY_MS)) < risk(quiet)


def test_fading_visits_raise_the_risk() -> None:
    def visits(days_ago: range) -> Activity:
        activity = customer(100)
        for days in days_ago:
            activity = fold_activity(activity, "view", NOW_MS - days * DAY_MS)
        return fold_activity(activity, "view", NOW_MS - DAY_MS)

    assert risk(visits(range(90, 60, -1))) > risk(visits(range(30, 0, -1)))


def test_bad_reviews_and_dislikes_raise_the_risk() -> None:
    happy, unhappy = (fold_activity(customer(9), "review", NOW_MS, rating=r) for r in (5, 1))
    assert risk(happy) < risk(unhappy) < risk(fold_activity(unhappy, "dislike", NOW_MS))


def test_who_never_bought_is_at_more_risk_than_who_bought_at_the_first_act() -> None:
    visitor = fold_activity(NO_ACTIVITY, "view", NOW_MS - 20 * DAY_MS)
    assert risk(visitor) > risk(customer(20))
    assert features(visitor)["never_bought"] == 1
    assert features(visitor)["frequency"] == 0


def test_without_any_act_there_is_still_an_answer() -> None:
    assert 0.5 < risk(NO_ACTIVITY) < 1


def test_a_loyal_shops_shift_lowers_every_risk() -> None:
    people = [customer(5), customer(200, 20)]
    shifted = BaselineChurn(base_shift=ONLINE_RETAIL_SHIFT).predict(people, NOW_MS, HORIZON)
    plain = BaselineChurn().predict(people, NOW_MS, HORIZON)
    assert all(a.probability < b.probability for a, b in zip(shifted, plain, strict=True))


def test_a_batch_answers_as_one_by_one() -> None:
    people = [customer(5), NO_ACTIVITY, EVERY_FEATURE]
    together, apart = BaselineChurn().predict(people, NOW_MS, HORIZON), [*map(assess, people)]
    assert together == apart
    assert [each.drivers for each in together] == [each.drivers for each in apart]


def test_an_empty_batch_has_no_answers() -> None:
    assert BaselineChurn().predict([], NOW_MS, HORIZON) == []


def test_an_absurd_price_leaves_every_number_finite() -> None:
    assessment = assess(fold_activity(customer(3), "purchase", NOW_MS, 1e308, 1e308))
    assert math.isfinite(assessment.probability)
    assert all(math.isfinite(x) for _, *pair in assessment.drivers for x in pair)


@pytest.mark.parametrize("horizon_days", [0.0, -1.0, math.nan])
def test_a_horizon_must_lie_ahead(horizon_days: float) -> None:
    with pytest.raises(ValueError, match="horizon_days"):
        assess(customer(1), horizon_days)


def test_a_typical_order_is_worth_something() -> None:
    with pytest.raises(ValueError, match="typical_order"):
        BaselineChurn(typical_order=0)
