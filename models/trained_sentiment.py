"""TrainedSentiment: a SentimentModel that was fitted on reviews, read from a folder.

Log-odds, calibrated, of one linear model over two views of a text: its n-grams, which know the
turns of phrase of the reviews learnt from, and the encoder's vector, which knows what other words
mean the same. The vector is the one that the text has anyway, so a review costs what its n-grams
cost: some tenths of a millisecond.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.model_folder import read_folder, write_folder
from models.ngrams import ngram_rows
from models.weights import ModelError

Floats = NDArray[np.float32]

KIND = "sentiment"
_ARRAYS, _NUMBERS = "linear.safetensors", "calibration.json"


@dataclass(frozen=True, slots=True)
class SentimentParts:
    """What was fitted; log-odds = intercept + slope * (n-grams . weights + vector . of_vector).

    ``idf`` and ``weights`` go by bucket, (n_buckets,); of a text's n-grams each counts by its idf,
    over the length of all of them. ``of_vector`` is (dim,).
    """

    idf: Floats
    weights: Floats
    of_vector: Floats
    slope: float
    intercept: float


class TrainedSentiment:
    """The model described above."""

    def __init__(self, parts: SentimentParts, name: str, encoder_id: str) -> None:
        self.name = name
        self.encoder_id = encoder_id
        self._parts = parts

    def content(self, texts: Sequence[str], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability that each text's writer is content, shape (len(texts),)."""
        log_odds = self._parts.intercept + self._parts.slope * self.scores(texts, vectors)
        return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))

    def scores(self, texts: Sequence[str], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what is calibrated, shape (len(texts),)."""
        parts = self._parts
        buckets, pointers = ngram_rows(texts, len(parts.idf))
        of_texts = np.repeat(np.arange(len(texts)), np.diff(pointers))
        idf = parts.idf[buckets].astype(np.float64)
        lengths = np.sqrt(np.bincount(of_texts, idf * idf, len(texts)))
        said = np.bincount(of_texts, idf * parts.weights[buckets], len(texts))
        # A text without n-grams says nothing by them.
        of_ngrams = said / np.where(lengths > 0, lengths, 1.0)
        return np.asarray(of_ngrams + vectors @ parts.of_vector.astype(np.float64))


def save_sentiment(
    folder: Path, parts: SentimentParts, encoder_id: str, facts: Mapping[str, Any]
) -> str:
    """Write a model into a new folder; return its name. Raises ModelError and OSError."""
    arrays = {name: getattr(parts, name) for name in ("idf", "weights", "of_vector")}
    numbers = {"slope": parts.slope, "intercept": parts.intercept}
    files = {
        _ARRAYS: save(arrays),
        _NUMBERS: (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode(),
    }
    return write_folder(folder, KIND, {"encoder": encoder_id, **facts}, files)


def load_sentiment(folder: Path) -> TrainedSentiment:
    """Read a model; raises ModelError naming what is missing, damaged or of another kind."""
    found = read_folder(folder, KIND)
    encoder_id = found.facts.get("encoder")
    if not isinstance(encoder_id, str):
        raise ModelError(f"{folder}: does not name the encoder that it reads the vectors of")
    missing = {_ARRAYS, _NUMBERS} - set(found.files)
    if missing:
        raise ModelError(f"{folder}: lacks {' and '.join(sorted(missing))}")
    try:
        parts = _parts(load(found.files[_ARRAYS]), json.loads(found.files[_NUMBERS]))
    except (KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a sentiment model's files: {error!r}") from None
    return TrainedSentiment(parts, found.name, encoder_id)


def _parts(arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]) -> SentimentParts:
    parts = SentimentParts(
        idf=arrays["idf"],
        weights=arrays["weights"],
        of_vector=arrays["of_vector"],
        slope=float(numbers["slope"]),
        intercept=float(numbers["intercept"]),
    )
    for array in (parts.idf, parts.weights, parts.of_vector):
        if array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
            raise ValueError("expected rows of finite float32 numbers")
    n_buckets = len(parts.idf)
    if len(parts.weights) != n_buckets or n_buckets.bit_count() != 1:
        raise ValueError("expected as many weights as idf, a power of two")
    if not (math.isfinite(parts.slope) and math.isfinite(parts.intercept) and parts.slope > 0):
        raise ValueError("expected finite numbers, and a slope above 0")
    return parts
