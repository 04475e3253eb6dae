"""Activities at several moments, and who bought when after them -> ChurnParts.

Nothing is learnt from what lies behind the end of the log, and nothing validated on what was
learnt from. The validation is by time: fitted on windows that end before a boundary, asked at the
first moment behind it. What is kept is then fitted anew on all windows. Of both fits a quarter of
the customers has no part: their answers end the boosting and fit the calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from models.activity import DAY_MS, Activity
from models.churn import BORROWED, churn_inputs
from models.evaluation.classes import OF_PROBABILITY
from models.evaluation.intervals import Estimate, of_statistic
from models.trained_churn import FEATURES, ChurnParts, TrainedChurn, additive

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: A customer in so many is left out of a fit, for its calibration.
HELD_OUT = 4
#: Signs that the additive part and the trees keep to: silence never lowers the risk, a longer
#: horizon never raises it. The time passed since somebody's last act moves no other input.
SIGNS = {
    "frequency": -1,
    "recency_in_gaps": 1,
    "purchase_trend": -1,
    "horizon": -1,
    "silence": 1,
    "activity_trend": -1,
}
# Zero means the absence of something, or 30 days: no data must move it.
_UNCENTRED = {*(term.name for term in BORROWED), "horizon"}
_L2 = 1e-4
_ROUNDS, _PATIENCE = 300, 20
_FIGURES = ("auc", "brier")
_TREES = {
    "objective": "binary",
    # Shallow and slow, chosen on CDNOW's first nine months: the additive part leaves little, and
    # 150 trees were worse than 50 there.
    "learning_rate": 0.05,
    "num_leaves": 8,
    "lambda_l2": 10.0,
    "monotone_constraints": [SIGNS.get(name, 0) for name in FEATURES],
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class TooLittle(ValueError):
    """A log from which nothing can be learnt; the text says what it lacks."""


@dataclass(frozen=True, slots=True)
class Moment:
    """All customers known at ``cut_ms``: numbers (the same at each moment), their activities of
    before, and the days until they bought next, infinite where the log does not know of it."""

    cut_ms: int
    users: NDArray[np.int64]
    activities: Sequence[Activity]
    silent_days: Floats


@dataclass(frozen=True, slots=True)
class Validation:
    """Figures on a window behind all that was fitted for them."""

    cut_ms: int
    horizon_days: float
    n_customers: int
    figures: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class _Window:
    """A moment's customers, asked of one horizon."""

    start_ms: int
    horizon_days: float
    users: NDArray[np.int64]
    inputs: Floats
    silent: Flags

    @property
    def end_ms(self) -> float:
        return self.start_ms + self.horizon_days * DAY_MS


@dataclass(frozen=True, slots=True)
class _Rows:
    inputs: Floats
    silent: Floats
    weights: Floats

    def of(self, which: Flags) -> _Rows:
        return _Rows(self.inputs[which], self.silent[which], self.weights[which])


def train_churn(
    moments: Sequence[Moment], end_ms: int, horizons: Sequence[float]
) -> tuple[ChurnParts, Validation]:
    """Return a model for all horizons, fitted on what is known at ``end_ms``, and how good it is.

    A horizon in days counts at the moments from which it ends by then. Raises TooLittle.
    """
    typical_order = _typical_order(moments[-1]) if moments else 1.0
    windows = [
        _window(moment, horizon, typical_order)
        for moment in moments
        for horizon in horizons
        if len(moment.users) and moment.cut_ms + horizon * DAY_MS <= end_ms
    ]
    if not windows:
        raise TooLittle("no horizon ends within the log: it is too short, or has too few acts")
    validation = _validation(windows, end_ms, typical_order)
    return _fit(windows, typical_order), validation


def _typical_order(moment: Moment) -> float:
    if not len(moment.activities):
        return 1.0
    values, _ = churn_inputs(moment.activities, moment.cut_ms, 30.0, 1.0)
    orders = values[:, FEATURES.index("order_value")]
    known = orders[np.isfinite(orders) & (orders > 0)]
    return float(np.median(known)) if len(known) else 1.0


def _window(moment: Moment, horizon: float, typical_order: float) -> _Window:
    _, inputs = churn_inputs(moment.activities, moment.cut_ms, horizon, typical_order)
    silent = moment.silent_days >= horizon
    return _Window(moment.cut_ms, horizon, moment.users, inputs, silent)


def _validation(windows: Sequence[_Window], end_ms: int, typical_order: float) -> Validation:
    """Fit on the windows of the first half of the time, ask at the beginning of the second."""
    first_ms = min(window.start_ms for window in windows)
    boundary_ms = (first_ms + end_ms) / 2
    before = [window for window in windows if window.end_ms <= boundary_ms]
    behind = [window for window in windows if window.start_ms >= boundary_ms]
    behind = [window for window in behind if 0 < window.silent.sum() < len(window.silent)]
    if not before or not behind:
        raise TooLittle("expected shorter horizons or a longer log: nothing is left to validate on")
    asked = min(behind, key=lambda window: (window.start_ms, -window.horizon_days))
    model = TrainedChurn(_fit(before, typical_order), "validation")
    said = model.probabilities(asked.inputs)
    figures = {name: of_statistic(OF_PROBABILITY[name], asked.silent, said) for name in _FIGURES}
    return Validation(asked.start_ms, asked.horizon_days, len(asked.users), figures)


def _fit(windows: Sequence[_Window], typical_order: float) -> ChurnParts:
    rows = _Rows(
        np.vstack([window.inputs for window in windows]),
        np.concatenate([window.silent for window in windows]).astype(np.float64),
        # Each window counts alike, however many customers it has.
        np.concatenate([np.full(len(w.users), 1.0 / len(w.users)) for w in windows]),
    )
    held_out = np.concatenate([_held_out(window.users) for window in windows])
    learnt, aside = rows.of(~held_out), rows.of(held_out)
    for some in (learnt, aside):
        if not len(some.silent) or some.silent.min() == some.silent.max():
            raise TooLittle("expected customers who bought within a horizon, and some who did not")
    base, weights, centres = _fit_additive(learnt)
    trees = _fit_trees(learnt, aside, lambda i: base + additive(i, weights, centres).sum(axis=1))
    parts = ChurnParts(
        tuple(weights.tolist()), tuple(centres.tolist()), 1.0, base, typical_order, trees
    )
    return _calibrated(parts, aside)


def _held_out(users: NDArray[np.int64]) -> Flags:
    # The number's low bits go by order of arrival, so mix them first (Knuth's constant).
    mixed = (users.astype(np.uint64) * np.uint64(2654435761)) % np.uint64(1 << 32)
    return np.asarray((mixed >> np.uint64(16)) % HELD_OUT == 0)


def _fit_additive(rows: _Rows) -> tuple[float, Floats, Floats]:
    """Return base, weights and centres by L2-penalised maximum likelihood, signs as in SIGNS."""
    known = ~np.isnan(rows.inputs)
    # An input that nobody has keeps a weight of 0: the penalty alone decides.
    shares = known * rows.weights[:, None] / np.maximum(known.T @ rows.weights, 1e-12)
    filled = np.where(known, rows.inputs, 0.0)
    means = (shares * filled).sum(axis=0)
    centres = np.array(
        [0.0 if n in _UNCENTRED else m for n, m in zip(FEATURES, means, strict=True)]
    )
    # The penalty is on weights of inputs of like spread.
    spread = np.sqrt((shares * (filled - centres) ** 2 * known).sum(axis=0))
    spread = np.where(spread > 1e-9, spread, 1.0)
    scaled = additive(rows.inputs, 1.0 / spread, centres)
    bounds = [(None, None), *(_BOUNDS[SIGNS.get(name, 0)] for name in FEATURES)]
    fitted = _logistic(scaled, rows, _L2, bounds)
    return float(fitted[0]), fitted[1:] / spread, centres


_Bound = tuple[float | None, float | None]
_BOUNDS: dict[int, _Bound] = {-1: (None, 0.0), 0: (None, None), 1: (0.0, None)}


def _logistic(columns: Floats, rows: _Rows, l2: float, bounds: Sequence[_Bound]) -> Floats:
    """Return intercept and weights of columns, (n, k), within bounds: shape (1 + k,)."""
    shares = rows.weights / rows.weights.sum()

    def loss(fitted: Floats) -> tuple[float, Floats]:
        log_odds = fitted[0] + columns @ fitted[1:]
        of_each = np.logaddexp(0.0, log_odds) - rows.silent * log_odds
        slopes = shares * (expit(log_odds) - rows.silent)
        gradient = np.concatenate([[slopes.sum()], slopes @ columns + 2 * l2 * fitted[1:]])
        return float(shares @ of_each + l2 * fitted[1:] @ fitted[1:]), gradient

    start = np.zeros(1 + columns.shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def _fit_trees(learnt: _Rows, aside: _Rows, offset: Callable[[Floats], Floats]) -> str:
    """Return LightGBM's text of the trees that go best with what they are added to."""
    import lightgbm

    data = [
        lightgbm.Dataset(
            rows.inputs,
            rows.silent,
            weight=rows.weights / rows.weights.mean(),
            init_score=offset(rows.inputs),
            feature_name=list(FEATURES),
        )
        for rows in (learnt, aside)
    ]
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    leaf = {"min_data_in_leaf": max(20, len(learnt.silent) // 400)}
    trees = lightgbm.train(
        {**_TREES, **leaf}, data[0], _ROUNDS, valid_sets=data[1:], callbacks=[stop]
    )
    return str(trees.model_to_string(num_iteration=trees.best_iteration))


def _calibrated(parts: ChurnParts, aside: _Rows) -> ChurnParts:
    """Return the parts with Platt's slope and intercept on customers who were held out."""
    said = np.clip(TrainedChurn(parts, "uncalibrated").probabilities(aside.inputs), 1e-9, 1 - 1e-9)
    log_odds = np.log(said / (1.0 - said))[:, None]
    # More silence must not become less risk, whatever a handful of customers held out did.
    shift, slope = _logistic(log_odds, aside, 0.0, [(None, None), (0.05, None)])
    return replace(parts, slope=float(slope), intercept=float(shift + slope * parts.intercept))
