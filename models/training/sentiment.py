"""Reviews, their vectors, and whether their writers were content -> SentimentParts.

A part of the reviews is held out of a first fit: it says how good the model is, and fits the
calibration. What is kept is then fitted anew on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from models.evaluation.classes import of_classes, of_probabilities
from models.evaluation.intervals import Estimate
from models.ngrams import ngram_rows
from models.trained_sentiment import SentimentParts

Flags = NDArray[np.bool_]
Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Buckets of n-grams: 4 MB in all.
N_BUCKETS = 1 << 19
#: One review in so many is held out of the first fit.
HELD_OUT = 8
#: Fewer of either kind teach nothing, and calibrate less.
FEWEST = 50
# Chosen on a tenth of the training part of online_shopping_10_cats: how freely weights grow, and
# the length of a vector beside the n-grams', which is 1: what is shorter is held back more.
_FREEDOM, _VECTOR_LENGTH = 16.0, 0.25


class TooLittle(ValueError):
    """Reviews from which nothing can be learnt; the text says what they lack."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Figures on reviews that had no part in the fit they are of."""

    n_reviews: int
    figures: dict[str, Estimate]


def train_sentiment(
    texts: Sequence[str], vectors: Vectors, content: Flags, seed: int = 0
) -> tuple[SentimentParts, Validation]:
    """Return a model fitted on all reviews, and how good it was on those held out of a first fit.

    ``vectors`` are the texts', (n, dim); ``content`` says of whom they come. Raises TooLittle.
    """
    fewest = min(int(content.sum()), int((~content).sum()))
    if fewest < FEWEST:
        raise TooLittle(
            f"expected {FEWEST} reviews of the content and as many of the discontent, got {fewest}"
        )
    is_aside = np.zeros(len(texts), bool)
    is_aside[_mixed(content, np.random.default_rng(seed))[::HELD_OUT]] = True
    grams = _grams(texts)
    first = _fit(grams[~is_aside], vectors[~is_aside], content[~is_aside])
    scores = _scores(first, grams[is_aside], vectors[is_aside])
    slope, intercept = _platt(scores, content[is_aside])
    parts = replace(_fit(grams, vectors, content), slope=slope, intercept=intercept)
    return parts, _validated(scores, content[is_aside])


def _mixed(content: Flags, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return all rows at random, but one kind after the other: every n-th has both kinds."""
    order = rng.permutation(len(content))
    return order[np.argsort(content[order], kind="stable")]


def _grams(texts: Sequence[str]) -> Any:
    """Return which n-grams each text has, a sparse matrix (n, N_BUCKETS)."""
    buckets, pointers = ngram_rows(texts, N_BUCKETS)
    ones = np.ones(len(buckets), np.float32)
    return sparse.csr_matrix((ones, buckets, pointers), shape=(len(texts), N_BUCKETS))


def _fit(grams: Any, vectors: Vectors, content: Flags) -> SentimentParts:
    """Return what separates the content best, not calibrated."""
    n_texts_with = np.asarray(grams.sum(axis=0)).ravel()
    idf = np.log((grams.shape[0] + 1) / (n_texts_with + 1)) + 1.0
    columns = sparse.hstack([_of_length_one(grams, idf), _VECTOR_LENGTH * vectors], format="csr")
    model = LogisticRegression(C=_FREEDOM, solver="liblinear", tol=1e-3, random_state=0)
    model.fit(columns, content)
    fitted = model.coef_[0]
    return SentimentParts(
        idf=idf.astype(np.float32),
        weights=fitted[:N_BUCKETS].astype(np.float32),
        of_vector=(_VECTOR_LENGTH * fitted[N_BUCKETS:]).astype(np.float32),
        slope=1.0,
        intercept=float(model.intercept_[0]),
    )


def _of_length_one(grams: Any, idf: Floats) -> Any:
    weighted = grams.multiply(idf).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sparse.diags(1.0 / np.where(lengths > 0, lengths, 1.0)) @ weighted


def _scores(parts: SentimentParts, grams: Any, vectors: Vectors) -> Floats:
    """Return what TrainedSentiment.scores does, of n-grams that are there already."""
    of_grams = _of_length_one(grams, parts.idf.astype(np.float64)) @ parts.weights
    return np.asarray(of_grams + vectors @ parts.of_vector, np.float64)


def _platt(scores: Floats, content: Flags) -> tuple[float, float]:
    """Return the slope and the intercept that turn scores into log-odds (Platt, 1999)."""
    model = LogisticRegression(C=1e6).fit(scores[:, None], content)
    # Nobody is more content for saying it less, whatever a handful of reviews held out did.
    return max(float(model.coef_[0, 0]), 0.05), float(model.intercept_[0])


def _validated(scores: Floats, content: Flags) -> Validation:
    """Return figures by calibrations on reviews other than those asked about: halves take turns."""
    said = np.empty(len(scores))
    order = _mixed(content, np.random.default_rng(0))
    halves = (order[::2], order[1::2])
    for asked, known in (halves, halves[::-1]):
        slope, intercept = _platt(scores[known], content[known])
        said[asked] = 1.0 / (1.0 + np.exp(-(slope * scores[asked] + intercept)))
    return Validation(
        len(scores), {**of_classes(content, said > 0.5), **of_probabilities(content, said)}
    )
