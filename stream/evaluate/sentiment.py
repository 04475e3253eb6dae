"""Sentiment of reviews, Chinese and English: a random tenth of each, after the other nine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from models.evaluation import intervals
from models.evaluation.classes import calibration, of_classes, of_probabilities
from models.tokenise import words
from models.trained_sentiment import TrainedSentiment
from models.training.sentiment import train_sentiment
from stream.evaluate.datasets import load_online_shopping, load_womens_clothing
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.vectors import Encode, encoded
from stream.settings import Settings
from stream.training.sentiment import RatedReview

Flags = NDArray[np.bool_]
Probabilities = NDArray[np.float64]

#: Of the English reviews, which are long, so many are read: the Chinese ones take long enough.
_MOST_ENGLISH = 8000
_QUICK = 10
_OURS, _PROBE = "trained", "linear probe on the encoder"


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield the Chinese reviews, then the English ones; ``quick`` takes a tenth of both."""
    chinese = load_online_shopping(data)[:: _QUICK if quick else 1]
    yield _evaluated(
        "sentiment_zh",
        _split(chinese),
        settings,
        encode,
        on_step,
        "online_shopping_10_cats, ten kinds of goods and hotels; what was chosen was chosen on a "
        "tenth of the other nine.",
    )
    english = load_womens_clothing(data)
    some = np.random.default_rng(0).permutation(len(english))[:_MOST_ENGLISH]
    yield _evaluated(
        "sentiment_en",
        _split([english[row] for row in some[:: _QUICK if quick else 1]]),
        settings,
        encode,
        on_step,
        "Women's clothing: four and five stars against one and two; nothing was chosen on it.",
    )


@dataclass(frozen=True, slots=True)
class _Split:
    learnt: Sequence[RatedReview]
    asked: Sequence[RatedReview]


def _split(reviews: Sequence[RatedReview]) -> _Split:
    """Return the random tenth of seed 0, and the other nine."""
    order = np.random.default_rng(0).permutation(len(reviews))
    n_asked = len(reviews) // 10
    asked, learnt = np.sort(order[:n_asked]), np.sort(order[n_asked:])
    return _Split([reviews[row] for row in learnt], [reviews[row] for row in asked])


def _evaluated(
    name: str, split: _Split, settings: Settings, encode: Encode, on_step: OnStep, note: str
) -> Evaluated:
    learnt, asked = ([review.text for review in part] for part in (split.learnt, split.asked))
    content, truth = (
        np.array([review.content for review in part]) for part in (split.learnt, split.asked)
    )
    on_step(f"{name}: encoding {len(learnt) + len(asked):,} reviews")
    vectors = encode([*learnt, *asked], settings)
    of_learnt, of_asked = vectors[: len(learnt)], vectors[len(learnt) :]
    on_step(f"{name}: fitting")
    parts, validation = train_sentiment(learnt, of_learnt, content)
    ours = TrainedSentiment(parts, _OURS, settings.encoder).content(asked, of_asked)
    nothing = np.zeros((len(vectors), 1), np.float32)
    by_ngrams, _ = train_sentiment(learnt, nothing[: len(learnt)], content)
    on_step(f"{name}: baselines")
    said = {
        _OURS: ours,
        "n-grams alone": TrainedSentiment(by_ngrams, "", "").content(asked, nothing[len(learnt) :]),
        "TF-IDF of words, linear": _by_words(learnt, content, asked),
        _PROBE: _probe(of_learnt, content, of_asked),
    }
    right = {model: ((p > 0.5) == truth).astype(np.float64) for model, p in said.items()}
    gains = [
        f"over {model} {intervals.difference(right[_OURS], right[model])}"
        for model in said
        if model != _OURS
    ]
    return Evaluated(
        name,
        [
            Row(model, {**of_classes(truth, p > 0.5), **of_probabilities(truth, p)})
            for model, p in said.items()
        ],
        f"A random tenth (seed 0), {len(asked):,} reviews, after learning from {len(learnt):,}. "
        f"{note} {truth.mean():.1%} of their writers are content. Vectors by {settings.encoder}. "
        f"Accuracy {', '.join(gains)}. On the {validation.n_reviews:,} of the learnt that were "
        f"held out: {validation.figures['accuracy']}.",
        {model: calibration(truth, said[model]) for model in (_OURS, _PROBE)},
    )


def _by_words(learnt: Sequence[str], content: Flags, asked: Sequence[str]) -> Probabilities:
    model = make_pipeline(
        TfidfVectorizer(analyzer=words), LogisticRegression(C=8.0, solver="liblinear")
    )
    model.fit(learnt, content)
    return np.asarray(model.predict_proba(asked)[:, 1])


def _probe(
    learnt: NDArray[np.float32], content: Flags, asked: NDArray[np.float32]
) -> Probabilities:
    model = LogisticRegression(C=100.0, max_iter=1000).fit(learnt, content)
    return np.asarray(model.predict_proba(asked)[:, 1])
