"""`prefstream evaluate churn` on CDNOW: fitted on the first 39 weeks, asked about the next 39."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream.evaluate.churn import evaluate
from stream.evaluate.report import Evaluated
from stream.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parents[2]
DATA = Path(os.environ.get("PREFSTREAM_DATA", HERE.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def cdnow() -> Evaluated:
    if not (DATA / "cdnow" / "CDNOW_master.txt").exists():
        pytest.skip(f"no {DATA}/cdnow: set PREFSTREAM_DATA to the folder that holds it")
    return next(evaluate(DATA, load_settings(), lambda _: None))


# Measured: .7804 and .1553. Told the others' answers, which lie behind the cut, a regression on the
# same inputs has .783, and .785 from all purchases: there is little more in them.
def test_customers_never_seen_are_ranked_better_than_by_every_baseline(cdnow: Evaluated) -> None:
    assert cdnow.rows[0].model == "trained"
    aucs = {row.model: row.estimates["auc"].value for row in cdnow.rows}
    assert aucs["trained"] >= 0.778
    told, more = aucs.pop("told the others' answers"), aucs.pop("told them, with all purchases")
    assert max(aucs, key=aucs.__getitem__) == "trained"
    assert aucs["trained"] >= told - 0.01
    assert told < more < 0.79


def test_their_probabilities_are_better_than_bg_nbd_s(cdnow: Evaluated) -> None:
    briers = {
        row.model: row.estimates["brier"].value for row in cdnow.rows if "brier" in row.estimates
    }
    assert briers["trained"] <= 0.157 < briers["BG/NBD"]
    assert briers["BG/NBD"] == pytest.approx(0.1612, abs=0.0005)


def test_a_probability_means_that_share_of_silent_customers(cdnow: Evaluated) -> None:
    for said, true in zip(*cdnow.curves["trained"], strict=True):
        # Twice the sampling error of 236 customers.
        assert said == pytest.approx(true, abs=0.07)
