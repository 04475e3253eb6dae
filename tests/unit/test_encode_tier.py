"""The model of reviews that the encode tier loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.trained_sentiment import SentimentParts, save_sentiment
from models.weights import ModelError
from stream.settings import load_settings
from stream.tiers.encode import sentiment_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ones = np.ones(4, np.float32)
    save_sentiment(tmp_path / "model", SentimentParts(ones, ones, ones, 1.0, 0.0), "hash-32", {})
    return tmp_path / "model"


def test_a_model_serves_the_encoder_it_was_made_with_and_no_other(folder: Path) -> None:
    settings = load_settings(sentiment_model=str(folder))
    model = sentiment_model(settings, "hash-32", 4)
    assert model is not None
    assert model.name.startswith("sentiment-")
    with pytest.raises(ModelError, match=r"reads vectors of encoder hash-32, .*hash-16"):
        sentiment_model(settings, "hash-16", 4)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        sentiment_model(load_settings(sentiment_model=str(tmp_path / "nowhere")), "hash-32", 4)


def test_without_a_folder_reviews_are_not_read() -> None:
    assert sentiment_model(load_settings(), "any", 4) is None
