"""Sentiment of real reviews: n-grams and the encoder's vector together beat either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from e5_model import e5_folder

from stream.evaluate.datasets import DataMissing, load_online_shopping
from stream.evaluate.report import Evaluated
from stream.evaluate.sentiment import evaluate
from stream.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parents[2]
DATA = Path(os.environ.get("PREFSTREAM_DATA", HERE.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def chinese() -> Evaluated:
    """A tenth of the Chinese reviews: some 5,650 to learn from, 627 to be asked about."""
    try:
        load_online_shopping(DATA)
    except DataMissing as missing:
        pytest.skip(f"{missing}: set PREFSTREAM_DATA to the folder that holds it")
    settings = load_settings(encoder=str(e5_folder()))
    return next(evaluate(DATA, settings, lambda _: None, quick=True))


def test_both_views_of_a_text_together_are_better_than_each(chinese: Evaluated) -> None:
    accuracy = {row.model: row.estimates["accuracy"].value for row in chinese.rows}
    ours = accuracy.pop("trained")
    assert ours > max(accuracy.values())
    assert ours > 0.9


def test_probabilities_are_meant(chinese: Evaluated) -> None:
    for said, true in zip(*chinese.curves["trained"], strict=True):
        # Twice the sampling error of 63 reviews.
        assert said == pytest.approx(true, abs=0.13)
