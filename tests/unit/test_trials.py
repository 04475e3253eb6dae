"""A model is tried before shoppers meet it: what loads but does not work is told by its name."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import LastItemModel

from models.churn import Assessment, BaselineChurn, Driver
from models.trained_sentiment import SentimentParts, TrainedSentiment
from models.trials import try_churn_model, try_sentiment_model, try_user_model
from models.weights import ModelError

DIM = 12


def sentiment(dim: int = DIM, slope: float = 1.0) -> TrainedSentiment:
    ones = np.ones(8, np.float32)
    parts = SentimentParts(ones, ones, np.ones(dim, np.float32), slope, 0.0)
    return TrainedSentiment(parts, "m", "hash-12")


def churn(probability: float, contribution: float) -> Any:
    drivers = (Driver("gap", 1.0, contribution),)
    assessment = Assessment(probability, 30.0, lambda: drivers)
    return SimpleNamespace(name="m", predict=lambda *_: [assessment])


def test_what_works_passes() -> None:
    try_user_model(LastItemModel(DIM), DIM)
    try_churn_model(BaselineChurn(), 30.0)
    try_sentiment_model(sentiment(), DIM)


def no_vectors(*_: Any) -> Any:
    return np.full((1, 5), np.nan)


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(lambda: try_user_model(LastItemModel(DIM), 7), id="another dim"),
        pytest.param(
            lambda: try_user_model(
                SimpleNamespace(name="m", dim=5, items=no_vectors, shoppers=no_vectors),  # type: ignore[arg-type]
                DIM,
            ),
            id="not finite",
        ),
        pytest.param(lambda: try_churn_model(churn(1.5, 0.1), 30.0), id="no probability"),
        pytest.param(lambda: try_churn_model(churn(float("nan"), 0.1), 30.0), id="nan"),
        pytest.param(lambda: try_churn_model(churn(0.5, float("inf")), 30.0), id="infinite driver"),
        pytest.param(lambda: try_sentiment_model(sentiment(7), DIM), id="another length"),
        pytest.param(lambda: try_sentiment_model(sentiment(slope=np.nan), DIM), id="says nan"),
    ],
)
def test_what_does_not_is_named(trial: Callable[[], None]) -> None:
    with pytest.raises(ModelError, match="does not work"):
        trial()
