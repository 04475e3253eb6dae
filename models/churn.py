"""ChurnModel: activities -> probability of no purchase within a horizon, and what drives it.

``BaselineChurn`` is a logistic model, additive in log-odds, so that each driver's contribution is
exact. Its numbers were fitted once, outside this repository, and can be had again so:

- Data: CDNOW master (Fader & Hardie) without the 2,357 customers of the published sample, cut at
  ten dates from 1997-04-01 to 1998-05-15; UCI Online Retail II, invoices of known customers, no
  cancellations, cut at eight dates from 2010-02-01 to 2010-08-15. A row is a customer with a
  purchase before the cut; the answer is whether none follows within 14, 30, 60, 90, 180 or
  273 days (horizons that end after 1998-06-30 or 2010-08-31 are left out).
- Fit: the inputs of ``churn_inputs``, L2-penalised (1e-5) maximum likelihood with an intercept per
  shop, rows weighted so that each cut and horizon counts alike within a shop, and the shops alike;
  signs bounded as said at ``FITTED``. Shapes (the prior gap, the horizon's bend) were chosen by the
  likelihood on customers left out, never on the CDNOW sample or Online Retail after August.
- ``base`` is CDNOW's intercept, a consumer shop. Shops differ in level far more than in slopes:
  Online Retail (wholesale, loyal) wants ``base_shift=ONLINE_RETAIL_SHIFT``.

Someone who never bought is assessed as if the first act had been a single purchase, plus
``never_bought``; someone without any act as if that first act were now.

Known limit: with FITTED and ``silence`` from different shops, a purchase by someone who was just
browsing can raise the risk (by up to 0.4 log-odds in under 1 % of random histories).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.activity import DAY_MS, LONG_HALF_LIFE_MS, SHORT_HALF_LIFE_MS, WINDOW_DAYS, Activity

Floats = NDArray[np.float64]

#: A customer's mean gap starts from one gap of this length, so one purchase has a gap as well.
PRIOR_GAP_DAYS = 60.0
#: Purchases this recent count for the trend.
TREND_DAYS = 90
#: Beyond this, a longer horizon adds less and less: some customers are gone for good.
HORIZON_BEND_DAYS = 250.0
#: What to add to the base for a shop like Online Retail II.
ONLINE_RETAIL_SHIFT = -1.39
# An absurd price must not become an infinite driver, which JSON cannot say.
_MAX_SPEND = 1e15


class Term(NamedTuple):
    """One input: contribution = weight * (input - centre), in log-odds of no purchase."""

    name: str
    weight: float
    centre: float


# Fitted on purchases as described above; centres are CDNOW's means. The weights of recency_in_gaps
# (never below 0), purchase_trend and horizon (never above) are bounded, so that silence never
# lowers the risk and a longer horizon never raises it.
FITTED = (
    Term("frequency", -0.955, 0.417),
    Term("gap", 0.684, -0.041),
    Term("recency_in_gaps", 0.534, 1.232),
    Term("purchase_trend", -0.451, -0.567),
    Term("order_value", -0.311, 0.027),
    Term("horizon", -1.424, 0.0),
)
# No data at hand joins years of purchases with browsing and reviews, so these are small.
# silence (0.25 +- 0.11) and never_bought (0.35 +- 0.12) were fitted with FITTED held fixed on 815
# Taobao users (2017-11-25 to 12-03, cut after 3, 4 and 5 days, no purchase within 2 and 4 days);
# activity_trend came out as -0.5 +- 0.5 there and is shrunk. satisfaction and dislikes are
# judgement, not measurement: at most 0.3 and some 0.1 per doubling.
BORROWED = (
    Term("silence", 0.25, 0.0),
    Term("activity_trend", -0.1, 0.0),
    Term("never_bought", 0.35, 0.0),
    Term("satisfaction", -0.3, 0.0),
    Term("dislikes", 0.1, 0.0),
)
TERMS = FITTED + BORROWED
#: Log-odds of CDNOW's mean customer at 30 days.
BASE = 3.038


class Driver(NamedTuple):
    """``value`` is what a person reads (days, counts, ratios); contribution is in log-odds."""

    feature: str
    value: float
    contribution: float


@dataclass(slots=True)  # frozen, it would take a microsecond more to make
class Assessment:
    """``probability`` of no purchase within the horizon; drivers largest first.

    The contributions sum to logit(probability) - base, where base is the model's log-odds for the
    typical customer at 30 days. A feature that is not known (no price, no review) is not a driver.
    Of most assessments nobody asks why: ``why`` works the drivers out when they are asked for.
    """

    probability: float
    horizon_days: float
    why: Callable[[], tuple[Driver, ...]] = field(compare=False, repr=False)

    @property
    def drivers(self) -> tuple[Driver, ...]:
        return self.why()


class ChurnModel(Protocol):
    @property
    def name(self) -> str: ...

    def predict(
        self, activities: Sequence[Activity], now_ms: int, horizon_days: float
    ) -> list[Assessment]:
        """Return one assessment per activity, in the order given."""


class BaselineChurn:
    """The model described above; ``typical_order`` is a usual order's value in the shop's money."""

    name = "churn-baseline-1"

    def __init__(self, *, typical_order: float = 50.0, base_shift: float = 0.0) -> None:
        if not typical_order > 0:
            raise ValueError(f"typical_order must be above 0, got {typical_order}")
        self.base = BASE + base_shift
        self._typical_order = typical_order
        self._weights = np.array([term.weight for term in TERMS])
        self._centres = np.array([term.centre for term in TERMS])

    def predict(
        self, activities: Sequence[Activity], now_ms: int, horizon_days: float
    ) -> list[Assessment]:
        """Return one assessment per activity, in the order given; some 3 us each in batches."""
        if not horizon_days > 0:
            raise ValueError(f"horizon_days must be above 0, got {horizon_days}")
        if not activities:
            return []
        values, inputs = churn_inputs(activities, now_ms, horizon_days, self._typical_order)
        contributions = (inputs - self._centres) * self._weights  # (n, terms); NaN where unknown
        log_odds = self.base + np.where(np.isnan(contributions), 0.0, contributions).sum(axis=1)
        probabilities = 1.0 / (1.0 + np.exp(-log_odds))
        return [
            Assessment(probability, horizon_days, partial(drivers_of, values, contributions, place))
            for place, probability in enumerate(probabilities.tolist())
        ]


_NAMES = tuple(term.name for term in TERMS)


def drivers_of(values: Floats, contributions: Floats, place: int) -> tuple[Driver, ...]:
    """Return the drivers of one row of both, (n, len(TERMS)), largest first; NaN is no driver."""
    of_it = contributions[place]
    # NaN sorts last.
    order = np.argsort(-np.abs(of_it), kind="stable")[: np.count_nonzero(~np.isnan(of_it))]
    return tuple(
        Driver(_NAMES[term], float(values[place, term]), float(of_it[term]))
        for term in order.tolist()
    )


def churn_inputs(
    activities: Sequence[Activity], now_ms: int, horizon_days: float, typical_order: float
) -> tuple[Floats, Floats]:
    """Return readable values and model inputs, both (n, len(TERMS)); NaN where unknown.

    There must be at least one activity.
    """
    # Of few activities an array operation costs as much as its call: as few of them as may be.
    # Times fit a double exactly.
    numbers = np.array([_numbers(activity, now_ms) for activity in activities], np.float64).T
    last, first_bought, last_bought, never, n_acts, n_lines, n_priced = numbers[:7]
    n_ratings, n_dislikes, spend, short, long, satisfaction = numbers[7:13]
    n_days, span, n_recent = numbers[13:]

    values, inputs = np.empty((2, len(activities), len(TERMS)))
    gap = (span + PRIOR_GAP_DAYS) / n_days
    since_purchase = np.maximum(now_ms - last_bought, 0.0) / DAY_MS
    overdue = since_purchase / gap
    usual = n_days * TREND_DAYS / np.maximum(span + 1, TREND_DAYS)
    trend = (n_recent + 1) / (usual + 1)
    since_act = np.where(last > 0, np.maximum(now_ms - last, 0.0) / DAY_MS, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        order_value = _order_value(spend, n_lines, n_priced, n_days, last_bought - first_bought)
        pace = _activity_trend(short, long, since_act, n_acts > n_lines)
    never_bought = np.where(never, 1.0, np.nan)
    mean_satisfaction = np.where(n_ratings > 0, satisfaction / (n_ratings + 2), np.nan)
    dislikes = np.where(n_dislikes > 0, n_dislikes, np.nan)

    columns = values.T
    columns[0] = np.where(never, 0.0, n_days)
    columns[1], columns[2], columns[3], columns[4] = gap, overdue, trend, order_value
    columns[5], columns[6], columns[7] = horizon_days, since_act, pace
    columns[8], columns[9], columns[10] = never_bought, mean_satisfaction, dislikes

    columns = inputs.T
    columns[0] = np.log(n_days)
    columns[1] = np.log(gap / PRIOR_GAP_DAYS)
    columns[2] = np.log1p(overdue)
    columns[3] = np.log(trend)
    ratio = np.log(np.maximum(order_value / typical_order, 1e-9))
    columns[4] = np.minimum(np.maximum(ratio, -2.0), 2.0)
    columns[5] = _bent(horizon_days) - _bent(30.0)
    # 0 when nothing was done since the last purchase, so shops that send purchases only
    # are as they were fitted. No lower than Taobao's nine days can tell.
    columns[6] = np.maximum(np.log1p(since_act) - np.log1p(since_purchase), -2.0)
    columns[7] = np.minimum(np.maximum(np.log2(pace), -4.0), 4.0)
    columns[8], columns[9] = never_bought, mean_satisfaction
    columns[10] = np.log1p(dislikes)
    return values, inputs


def _bent(days: float) -> float:
    """Return a growing function: the log of the days while short, flat when long."""
    return -math.log(1.0 / days + 1.0 / HORIZON_BEND_DAYS)


def _numbers(activity: Activity, now_ms: int) -> tuple[float, ...]:
    """Return what the inputs are made of; who never bought has bought once, with the first act.

    Last act, first and last purchase, whether there was none, the counts and sums, and purchase
    days, days from first to last of them, and those in the last TREND_DAYS.
    """
    (first, last, first_bought, last_bought, n_acts, n_lines, n_priced, n_ratings,
     n_dislikes, spend, short, long, satisfaction, days) = activity  # fmt: skip
    never = last_bought == 0
    if never:
        first_bought = last_bought = first if last > 0 else now_ms
    days = days or 1
    passed = max(now_ms // DAY_MS - last_bought // DAY_MS, 0)
    recent = days & (1 << TREND_DAYS - passed) - 1 if passed < TREND_DAYS else 0
    return (
        last, first_bought, last_bought, never, n_acts, n_lines, n_priced,
        n_ratings, n_dislikes, spend, short, long, satisfaction,
        days.bit_count(), days.bit_length() - 1, recent.bit_count(),
    )  # fmt: skip


def _order_value(
    spend: Floats, n_lines: Floats, n_priced: Floats, n_days: Floats, tenure_ms: Floats
) -> Floats:
    """Return the mean value of a purchase occasion; NaN when no price is known."""
    # Spend is for all time and days are of the window: take the window's rate for the rest.
    n_occasions = n_days * np.maximum(tenure_ms / (WINDOW_DAYS * DAY_MS), 1.0)
    mean = np.minimum(spend, _MAX_SPEND) / n_priced * n_lines / n_occasions
    return np.where(n_priced > 0, mean, np.nan)


def _activity_trend(
    short: Floats, long: Floats, since_act: Floats, browses: NDArray[np.bool_]
) -> Floats:
    """Return acts a day lately over acts a day in the long run, now; NaN without browsing.

    1 is steady. Purchases alone have no trend of their own here: purchase_trend has it.
    """
    faded = 2.0 ** (since_act * (DAY_MS / LONG_HALF_LIFE_MS - DAY_MS / SHORT_HALF_LIFE_MS))
    pace = short / long * (LONG_HALF_LIFE_MS / SHORT_HALF_LIFE_MS) * faded
    return np.where(browses, np.maximum(pace, 1e-9), np.nan)
