"""A first use of a trained model, by made-up input: what would fail then must not fail a shopper.

A folder whose digests are right may still hold what cannot be used, such as vectors of another
length than the encoder's.
"""

from __future__ import annotations

import math

import numpy as np

from models.activity import NO_ACTIVITY, fold_activity
from models.churn import ChurnModel
from models.item_index import Vectors
from models.ranking_features import FEATURES
from models.sentiment import SentimentModel
from models.trained_ranker import TrainedRanker
from models.user_model import UserModel
from models.weights import ModelError

_HOUR_MS = 3_600_000


def try_user_model(model: UserModel, dim: int) -> None:
    """Raise ModelError unless a model learns of an item of an encoder of ``dim`` numbers, and
    of a shopper who took it."""
    try:
        items = model.items(["an item"], _unit(dim))
        found = np.concatenate([items, model.shoppers([items])])
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{model.name} does not work: {error}") from error
    if found.shape != (2, model.dim) or not np.isfinite(found).all():
        raise ModelError(f"{model.name} does not work: it makes no vectors of {model.dim} numbers")


def try_ranker(ranker: TrainedRanker) -> None:
    """Raise ModelError unless a ranker rates two candidates of whom nothing is known."""
    scores = ranker.rate(np.full((2, len(FEATURES)), np.nan, np.float32))
    chances = ranker.chances(scores, np.zeros(2, np.int64), 1)
    if not (np.isfinite(scores).all() and np.isfinite(chances).all()):
        raise ModelError(f"{ranker.name} does not work: it says {chances}")


def try_churn_model(model: ChurnModel, horizon_days: float) -> None:
    """Raise ModelError unless a model assesses a customer who has just bought something."""
    activity = fold_activity(NO_ACTIVITY, "purchase", _HOUR_MS, 10.0, 1.0)
    try:
        (assessment,) = model.predict([activity], 2 * _HOUR_MS, horizon_days)
        contributions = [contribution for _, _, contribution in assessment.drivers]
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{model.name} does not work: {error}") from error
    if not (0 <= assessment.probability <= 1 and all(map(math.isfinite, contributions))):
        raise ModelError(f"{model.name} does not work: it says {assessment.probability}")


def try_sentiment_model(model: SentimentModel, dim: int) -> None:
    """Raise ModelError unless a model reads a text with a vector of ``dim`` numbers."""
    try:
        said = model.content(["Well made, and it came in time."], _unit(dim))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{model.name} does not work: {error}") from error
    if said.shape != (1,) or not 0 <= said[0] <= 1:
        raise ModelError(f"{model.name} does not work: it says {said}")


def _unit(dim: int) -> Vectors:
    return np.full((1, dim), dim**-0.5, np.float32)
