"""Trained models out of their folders: checked, held against the encoder, and tried once."""

from __future__ import annotations

from pathlib import Path

from models.churn import ChurnModel
from models.sentiment import SentimentModel
from models.trained_churn import load_churn
from models.trained_ranker import Conditions, TrainedRanker, load_ranker
from models.trained_sentiment import load_sentiment
from models.trials import try_churn_model, try_ranker, try_sentiment_model, try_user_model
from models.user_model import UserModel
from models.weights import WrongEncoder
from stream.settings import Settings


def open_user_model(folder: Path, encoder_id: str, dim: int) -> UserModel:
    """Read a model of ``prefstream train sequence``; ``dim`` is the encoder's.

    Raises ModelError, WrongEncoder where it learnt over vectors of another encoder.
    """
    # Torch takes a second to load and some 200 MB: who has no such model does without.
    import torch

    from models.sequence_model import load_sequence

    # Threads would spin for each other on operations of microseconds.
    torch.set_num_threads(1)
    model = load_sequence(folder, encoder_id)
    try_user_model(model, dim)
    return model


def conditions_of(settings: Settings, encoder_id: str, has_user_model: bool) -> Conditions:
    """Return what a ranker's features are computed with."""
    return Conditions(
        encoder_id,
        settings.text_share,
        settings.step_decay,
        has_user_model,
        settings.cooccurrence_ridge,
    )


def open_ranker(
    folder: Path, settings: Settings, encoder_id: str, has_user_model: bool
) -> TrainedRanker:
    """Read a model of ``prefstream train ranker``.

    Raises ModelError, WrongEncoder where it learnt over vectors of another encoder.
    """
    conditions = conditions_of(settings, encoder_id, has_user_model)
    ranker = load_ranker(folder, conditions)
    try_ranker(ranker)
    return ranker


def open_churn_model(folder: Path, horizon_days: float) -> ChurnModel:
    """Read a model of ``prefstream train churn``; raises ModelError."""
    model = load_churn(folder)
    try_churn_model(model, horizon_days)
    return model


def open_sentiment_model(folder: Path, encoder_id: str, dim: int) -> SentimentModel:
    """Read a model of ``prefstream train sentiment``; ``dim`` is the encoder's.

    Raises ModelError, WrongEncoder where it reads vectors of another encoder.
    """
    model = load_sentiment(folder)
    if model.encoder_id != encoder_id:
        raise WrongEncoder(
            f"{folder}: reads vectors of encoder {model.encoder_id}, "
            f"and PREFSTREAM_ENCODER is {encoder_id}"
        )
    try_sentiment_model(model, dim)
    return model
