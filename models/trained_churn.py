"""TrainedChurn: a ChurnModel that was fitted on a shop's own log, read from a folder.

Its log-odds are an additive part of the inputs that the built-in model has, plus trees by gradient
boosting for what that leaves, calibrated. The additive part reaches to horizons and silences
longer than any in the log, where trees stand still.

Contributions are the additive part's own and the trees' Shapley values (Lundberg et al., 2020),
which are exact for trees. What is not known of a customer is no driver; what the trees make of
its absence then counts to the base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.activity import Activity
from models.churn import TERMS, Assessment, Driver, churn_inputs, drivers_of
from models.model_folder import read_folder, write_folder
from models.weights import ModelError

Floats = NDArray[np.float64]

KIND = "churn"
#: The inputs, in the order of the columns.
FEATURES = tuple(term.name for term in TERMS)
_ADDITIVE, _TREES = "additive.json", "trees.txt"


@dataclass(frozen=True, slots=True)
class ChurnParts:
    """What was fitted; log-odds = intercept + slope * (weights . (inputs - centres) + trees).

    ``weights`` and ``centres`` go by FEATURES. ``trees`` is LightGBM's text, which gives log-odds.
    ``typical_order`` is the median order's value, in the shop's money.
    """

    weights: tuple[float, ...]
    centres: tuple[float, ...]
    slope: float
    intercept: float
    typical_order: float
    trees: str


class TrainedChurn:
    """The model described above. Raises ModelError when LightGBM is missing or the trees are not
    its text."""

    def __init__(self, parts: ChurnParts, name: str) -> None:
        self.name = name
        self._parts = parts
        self._weights, self._centres = np.array(parts.weights), np.array(parts.centres)
        self._trees = _booster(parts.trees, name)

    @property
    def base(self) -> float:
        """The log-odds that the contributions are added to, of somebody all is known of."""
        nothing = np.zeros((1, len(FEATURES)))
        return self._parts.intercept + self._parts.slope * float(self._shares(nothing)[0, -1])

    def predict(
        self, activities: Sequence[Activity], now_ms: int, horizon_days: float
    ) -> list[Assessment]:
        """Return one assessment per activity, in the order given; horizon_days is above 0."""
        if not horizon_days > 0:
            raise ValueError(f"horizon_days must be above 0, got {horizon_days}")
        if not activities:
            return []
        values, inputs = churn_inputs(activities, now_ms, horizon_days, self._parts.typical_order)
        probabilities = self.probabilities(inputs)
        return [
            Assessment(probability, horizon_days, partial(self._drivers, values, inputs, place))
            for place, probability in enumerate(probabilities.tolist())
        ]

    def probabilities(self, inputs: Floats) -> Floats:
        """Return the probabilities of inputs, (n, len(FEATURES)) as churn_inputs makes them."""
        raw = self._trees.predict(inputs, raw_score=True, num_threads=1)
        score = additive(inputs, self._weights, self._centres).sum(axis=1) + raw
        log_odds = self._parts.intercept + self._parts.slope * score
        return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))

    def _drivers(self, values: Floats, inputs: Floats, place: int) -> tuple[Driver, ...]:
        of_it = inputs[place : place + 1]
        shares = additive(of_it, self._weights, self._centres) + self._shares(of_it)[:, :-1]
        contributions = np.where(np.isnan(of_it), np.nan, self._parts.slope * shares)
        return drivers_of(values[place : place + 1], contributions, 0)

    def _shares(self, inputs: Floats) -> Floats:
        """Return the trees' Shapley values and, last, their mean, (n, len(FEATURES) + 1)."""
        return np.asarray(self._trees.predict(inputs, pred_contrib=True, num_threads=1))


def additive(inputs: Floats, weights: Floats, centres: Floats) -> Floats:
    """Return what each input adds, (n, len(FEATURES)), nothing where it is unknown."""
    return np.where(np.isnan(inputs), 0.0, (inputs - centres) * weights)


def save_churn(folder: Path, parts: ChurnParts, facts: Mapping[str, Any]) -> str:
    """Write a model into a new folder; return its name. Raises ModelError and OSError."""
    numbers = {key: value for key, value in asdict(parts).items() if key != "trees"}
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    files = {_ADDITIVE: text.encode(), _TREES: parts.trees.encode()}
    return write_folder(folder, KIND, {"features": list(FEATURES), **facts}, files)


def load_churn(folder: Path) -> TrainedChurn:
    """Read a model; raises ModelError naming what is missing, damaged or of another kind."""
    found = read_folder(folder, KIND)
    if found.facts.get("features") != list(FEATURES):
        raise ModelError(f"{folder}: made for other features than {', '.join(FEATURES)}")
    missing = {_ADDITIVE, _TREES} - set(found.files)
    if missing:
        raise ModelError(f"{folder}: lacks {' and '.join(sorted(missing))}")
    try:
        parts = _parts(json.loads(found.files[_ADDITIVE]), found.files[_TREES].decode())
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / _ADDITIVE}: not a churn model's: {error!r}") from None
    return TrainedChurn(parts, found.name)


def _parts(numbers: Mapping[str, Any], trees: str) -> ChurnParts:
    parts = ChurnParts(
        weights=tuple(map(float, numbers["weights"])),
        centres=tuple(map(float, numbers["centres"])),
        slope=float(numbers["slope"]),
        intercept=float(numbers["intercept"]),
        typical_order=float(numbers["typical_order"]),
        trees=trees,
    )
    if {len(parts.weights), len(parts.centres)} != {len(FEATURES)}:
        raise ValueError(f"expected {len(FEATURES)} weights and centres")
    scalars = (parts.slope, parts.intercept, parts.typical_order)
    if not all(map(math.isfinite, (*parts.weights, *parts.centres, *scalars))):
        raise ValueError("expected finite numbers")
    if not (parts.slope > 0 and parts.typical_order > 0):
        raise ValueError("expected slope and typical_order above 0")
    return parts


def _booster(trees: str, name: str) -> Any:
    try:
        from lightgbm import Booster
        from lightgbm.basic import LightGBMError
    except ImportError as error:
        raise ModelError(
            f"model {name!r} needs LightGBM: `pip install prefstream[train]` ({error})"
        ) from None
    try:
        booster = Booster(model_str=trees)
    except (LightGBMError, ValueError) as error:
        raise ModelError(f"model {name!r}: {_TREES} is not LightGBM's text: {error}") from None
    if booster.num_feature() != len(FEATURES):
        raise ModelError(
            f"model {name!r}: expected trees of {len(FEATURES)} features, "
            f"got {booster.num_feature()}"
        )
    return booster
