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
        known = ~np.isnan(contributions)
        log_odds = self.base + np.where(known, contributions, 0.0).sum(axis=1)
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
    # Times fit a double exactly.
    numbers = np.array([activity[:-1] for activity in activities], np.float64).T
    first, last, first_bought, last_bought, n_acts, n_lines = numbers[:6]
    n_priced, n_ratings, n_dislikes, spend, short, long, satisfaction = numbers[6:]
    never = last_bought == 0
    seen = last > 0
    joined = np.where(seen, first, now_ms)
    last_bought = np.where(never, joined, last_bought)
    first_bought = np.where(never, joined, first_bought)
    n_days, span, n_recent = _purchase_days(activities, last_bought, now_ms)

    gap = (span + PRIOR_GAP_DAYS) / n_days
    since_purchase = np.maximum(now_ms - last_bought, 0.0) / DAY_MS
    overdue = since_purchase / gap
    usual = n_days * TREND_DAYS / np.maximum(span + 1, TREND_DAYS)
    trend = (n_recent + 1) / (usual + 1)
    order_value = _order_value(spend, n_lines, n_priced, n_days, last_bought - first_bought)
    since_act = np.where(seen, np.maximum(now_ms - last, 0.0) / DAY_MS, np.nan)
    pace = _activity_trend(short, long, since_act, n_acts > n_lines)
    mean_satisfaction = np.where(n_ratings > 0, satisfaction / (n_ratings + 2), np.nan)
    dislikes = np.where(n_dislikes > 0, n_dislikes, np.nan)
    never_bought = np.where(never, 1.0, np.nan)
    horizon = np.full(len(activities), horizon_days)

    values = (
        np.where(never, 0.0, n_days),
        gap,
        overdue,
        trend,
        order_value,
        horizon,
        since_act,
        pace,
        never_bought,
        mean_satisfaction,
        dislikes,
    )
    inputs = (
        np.log(n_days),
        np.log(gap / PRIOR_GAP_DAYS),
        np.log1p(overdue),
        np.log(trend),
        np.clip(np.log(np.maximum(order_value / typical_order, 1e-9)), -2.0, 2.0),
        _bent(horizon) - _bent(30.0),
        # 0 when nothing was done since the last purchase, so shops that send purchases only
        # are as they were fitted. No lower than Taobao's nine days can tell.
        np.maximum(np.log1p(since_act) - np.log1p(since_purchase), -2.0),
        np.clip(np.log2(pace), -4.0, 4.0),
        never_bought,
        mean_satisfaction,
        np.log1p(dislikes),
    )
    return np.column_stack(values), np.column_stack(inputs)


def _bent(days: Floats | float) -> Floats:
    """Return a growing function: the log of the days while short, flat when long."""
    return -np.log(1.0 / np.asarray(days) + 1.0 / HORIZON_BEND_DAYS)


def _purchase_days(
    activities: Sequence[Activity], last_bought: Floats, now_ms: int
) -> tuple[Floats, Floats, Floats]:
    """Return purchase days, days from first to last of them, and those in the last TREND_DAYS."""
    passed = (now_ms // DAY_MS - last_bought // DAY_MS).astype(np.int64)
    left = np.clip(TREND_DAYS - passed, 0, TREND_DAYS).tolist()
    rows = []
    for activity, n_left in zip(activities, left, strict=True):
        days = activity.purchase_days or 1  # never bought: as if once
        rows.append(
            (days.bit_count(), days.bit_length() - 1, (days & (1 << n_left) - 1).bit_count())
        )
    n_days, span, n_recent = np.array(rows, np.float64).T
    return n_days, span, n_recent


def _order_value(
    spend: Floats, n_lines: Floats, n_priced: Floats, n_days: Floats, tenure_ms: Floats
) -> Floats:
    """Return the mean value of a purchase occasion; NaN when no price is known."""
    # Spend is for all time and days are of the window: take the window's rate for the rest.
    n_occasions = n_days * np.maximum(tenure_ms / (WINDOW_DAYS * DAY_MS), 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.minimum(spend, _MAX_SPEND) / n_priced * n_lines / n_occasions
    return np.where(n_priced > 0, mean, np.nan)


def _activity_trend(
    short: Floats, long: Floats, since_act: Floats, browses: NDArray[np.bool_]
) -> Floats:
    """Return acts a day lately over acts a day in the long run, now; NaN without browsing.

    1 is steady. Purchases alone have no trend of their own here: purchase_trend has it.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        faded = 2.0 ** (since_act * (DAY_MS / LONG_HALF_LIFE_MS - DAY_MS / SHORT_HALF_LIFE_MS))
        pace = short / long * (LONG_HALF_LIFE_MS / SHORT_HALF_LIFE_MS) * faded
    return np.where(browses, np.maximum(pace, 1e-9), np.nan)
