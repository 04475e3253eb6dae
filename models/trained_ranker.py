"""TrainedRanker: candidates in the order that a shop's own log taught, read from a folder.

The score of a candidate is linear in its features (models/ranking_features.py), some of which are
products, so that how far a source counts depends on how well known the item and the shopper are.
It was fitted list by list, as the log-odds of one candidate before another. Linear on purpose:
what each source of evidence adds is then exact, which the reasons tell; a micro-batch costs one
matrix product; and trees were no better (LightGBM's lambdarank, 150 to 300 trees over the same
candidates of Amazon Beauty, item before the last: NDCG@10 .0761 to .0773, this .0790 there).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.model_folder import read_folder, write_folder
from models.ranking_features import FEATURES, GROUPS
from models.weights import ModelError, WrongEncoder

KIND = "ranker"
_WEIGHTS = "weights.json"
#: Log-odds that an item of the shopper's own history loses: no log says how welcome it is, since
#: what is asked of a log is what comes new.
REPEATED = 2.0

#: Of what a file may say: single precision must still tell such scores apart.
_LARGEST = 1e6

_NAMES = tuple(FEATURES)
#: (len(FEATURES), len(GROUPS)), 1 where the feature is of the group.
_OF_GROUP = np.array(
    [[group == of_it for group in GROUPS] for of_it in FEATURES.values()], np.float32
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the features were computed with; with other ones they would mean something else."""

    encoder: str
    text_share: float
    step_decay: float
    user_model: bool
    cooccurrence_ridge: float = 0.0


@dataclass(frozen=True, slots=True)
class RankerParts:
    """What was fitted: ``weights``, ``centres``, ``lows`` and ``highs`` go by FEATURES. A centre is
    what a usual candidate has; what lies beyond the lows and highs that there were counts as these.

    The chance that an item is the next is by log-odds ``slope * s + intercept``, s the logarithm of
    its share among the shopper's candidates. ``diversity`` is the strength of MMR that did best.
    """

    weights: tuple[float, ...]
    centres: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    slope: float
    intercept: float
    diversity: float
    conditions: Conditions


class TrainedRanker:
    """The ranker of some parts; holds nothing that changes, so it may be swapped for another."""

    def __init__(self, parts: RankerParts, name: str) -> None:
        self.name = name
        self.diversity = parts.diversity
        self._parts = parts
        self._weights = np.array(parts.weights, np.float32)
        self._centres = np.array(parts.centres, np.float32)
        self._lows, self._highs = np.array([parts.lows, parts.highs], np.float32)

    def rate(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores (m,) of candidates with features (m, len(FEATURES)): log-odds of one
        before another of the same shopper."""
        return np.asarray(self._known(features) @ self._weights, np.float32)

    def shares(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what each of GROUPS adds to the scores, (m, len(GROUPS))."""
        return np.asarray(self._known(features) * self._weights @ _OF_GROUP, np.float32)

    def chances(
        self, scores: NDArray[np.float32], owners: NDArray[np.int64], n_owners: int
    ) -> NDArray[np.float32]:
        """Return the calibrated chance of each of the shoppers' candidates to be taken next, (m,).

        ``scores`` are of all candidates there are, those of a shopper side by side.
        """
        log_odds = self._parts.slope * log_shares(scores, owners, n_owners) + self._parts.intercept
        return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)

    def _known(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        # What is not known is as usual.
        known = np.clip(features, self._lows, self._highs) - self._centres
        return np.asarray(np.nan_to_num(known, copy=False), np.float32)


def log_shares(
    scores: NDArray[np.float32], owners: NDArray[np.int64], n_owners: int
) -> NDArray[np.float32]:
    """Return the logarithm of each score's share among its owner's by the softmax, (m,); ``owners``
    never fall."""
    if not len(scores):
        return scores
    starts = np.searchsorted(owners, np.arange(n_owners))
    has_any = np.bincount(owners, minlength=n_owners) > 0
    largest, sums = np.zeros((2, n_owners), np.float32)
    largest[has_any] = np.maximum.reduceat(scores, starts[has_any])
    moved = scores - largest[owners]
    sums[has_any] = np.add.reduceat(np.exp(moved), starts[has_any])
    return np.asarray(moved - np.log(np.maximum(sums, 1e-30))[owners], np.float32)


def save_ranker(folder: Path, parts: RankerParts, facts: Mapping[str, Any]) -> str:
    """Write a ranker into a new folder; return its name. Raises ModelError and OSError."""
    text = json.dumps(asdict(parts), indent=2, allow_nan=False) + "\n"
    facts = {"features": list(_NAMES), "encoder": parts.conditions.encoder, **facts}
    return write_folder(folder, KIND, facts, {_WEIGHTS: text.encode()})


def load_ranker(folder: Path, conditions: Conditions) -> TrainedRanker:
    """Read a ranker for use under some conditions.

    Raises ModelError naming what is missing, damaged, of another kind or trained under others;
    WrongEncoder where that is the encoder.
    """
    found = read_folder(folder, KIND)
    if found.facts.get("features") != list(_NAMES):
        raise ModelError(f"{folder}: made for other features than {', '.join(_NAMES)}")
    if _WEIGHTS not in found.files:
        raise ModelError(f"{folder}: lacks {_WEIGHTS}")
    try:
        parts = _parts(json.loads(found.files[_WEIGHTS]))
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / _WEIGHTS}: not a ranker's: {error!r}") from None
    for name, here in asdict(conditions).items():
        there = getattr(parts.conditions, name)
        if there != here:
            refused = WrongEncoder if name == "encoder" else ModelError
            raise refused(
                f"{folder}: trained with {name} {there!r}, and the settings say {here!r}: "
                "train it anew"
            )
    return TrainedRanker(parts, found.name)


def _parts(said: Mapping[str, Any]) -> RankerParts:
    conditions = said["conditions"]
    parts = RankerParts(
        weights=_numbers(said["weights"]),
        centres=_numbers(said["centres"]),
        lows=_numbers(said["lows"]),
        highs=_numbers(said["highs"]),
        slope=float(said["slope"]),
        intercept=float(said["intercept"]),
        diversity=float(said["diversity"]),
        conditions=Conditions(
            str(conditions["encoder"]),
            float(conditions["text_share"]),
            float(conditions["step_decay"]),
            conditions["user_model"] is True,
            # Older ones learnt from cosines.
            float(conditions.get("cooccurrence_ridge", 0.0)),
        ),
    )
    columns = (parts.weights, parts.centres, parts.lows, parts.highs)
    numbers = (*(n for column in columns for n in column), parts.slope, parts.intercept)
    if not all(abs(number) <= _LARGEST for number in numbers):
        raise ValueError("expected finite numbers, none of them beyond a million")
    if not (parts.slope > 0 and 0 <= parts.diversity <= 1):
        raise ValueError("expected a slope above 0 and a diversity from 0 to 1")
    return parts


def _numbers(said: Sequence[Any]) -> tuple[float, ...]:
    if not isinstance(said, list) or len(said) != len(_NAMES):
        raise ValueError(f"expected {len(_NAMES)} numbers, one of each feature")
    return tuple(map(float, said))
