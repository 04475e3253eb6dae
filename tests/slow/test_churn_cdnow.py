"""BaselineChurn on customers it was not fitted on: the published CDNOW sample, 39 + 39 weeks."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.activity import DAY_MS, NO_ACTIVITY, Activity, fold_activity
from models.churn import BaselineChurn

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[2]
SAMPLE = Path(os.environ.get("PREFSTREAM_DATA", HERE.parent / "shared" / "data")) / (
    "cdnow/CDNOW_sample.txt"
)
CUT_MS = int(datetime(1997, 10, 1, tzinfo=timezone.utc).timestamp() * 1000)
# A usual order of the shop: the median of the customers the model was fitted on.
TYPICAL_ORDER = 25.0


@pytest.fixture(scope="module")
def purchases() -> list[tuple[str, int, float, float]]:
    """Return (customer, event time, price of a disc, discs) of every purchase."""
    if not SAMPLE.exists():
        pytest.skip(f"no {SAMPLE}: set PREFSTREAM_DATA to the folder that holds cdnow/")
    rows = []
    for line in SAMPLE.read_text().splitlines():
        customer, _, day, discs, dollars = line.split()
        noon = datetime.strptime(day + "12", "%Y%m%d%H").replace(tzinfo=timezone.utc)
        quantity = max(float(discs), 1.0)
        rows.append((customer, int(noon.timestamp() * 1000), float(dollars) / quantity, quantity))
    return rows


def silent_and_assessed(
    purchases: list[tuple[str, int, float, float]], horizon_days: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return who did not buy within the horizon, and the probability given, per customer."""
    known: dict[str, Activity] = {}
    later = set()
    for customer, event_time_ms, price, quantity in purchases:
        if event_time_ms < CUT_MS:
            before = known.get(customer, NO_ACTIVITY)
            known[customer] = fold_activity(before, "purchase", event_time_ms, price, quantity)
        elif event_time_ms < CUT_MS + horizon_days * DAY_MS:
            later.add(customer)
    model = BaselineChurn(typical_order=TYPICAL_ORDER)
    assessed = model.predict(list(known.values()), CUT_MS, float(horizon_days))
    silent = np.array([customer not in later for customer in known])
    return silent, np.array([assessment.probability for assessment in assessed])


def auc(silent: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """Return the chance that a silent customer was given more than one who bought."""
    steps = probability[silent][:, None] - probability[~silent][None, :]
    return float((steps > 0).mean() + (steps == 0).mean() / 2)


# BG/NBD fitted on the sample's own first 39 weeks has .773/.1612 at 273 days, .805/.0560 at 30.
@pytest.mark.parametrize(
    ("horizon_days", "least_auc", "most_brier"), [(273, 0.773, 0.160), (30, 0.800, 0.057)]
)
def test_customers_never_seen_are_ranked_as_well_as_by_bg_nbd(
    purchases, horizon_days: int, least_auc: float, most_brier: float
) -> None:
    silent, probability = silent_and_assessed(purchases, horizon_days)
    assert len(silent) == 2357
    assert auc(silent, probability) >= least_auc
    assert float(((probability - silent) ** 2).mean()) <= most_brier


@pytest.mark.parametrize("horizon_days", [30, 90, 273])
def test_a_probability_means_that_share_of_silent_customers(purchases, horizon_days: int) -> None:
    silent, probability = silent_and_assessed(purchases, horizon_days)
    for tenth in np.array_split(np.argsort(probability), 10):
        # Twice the sampling error of 236 customers.
        assert probability[tenth].mean() == pytest.approx(silent[tenth].mean(), abs=0.07)
