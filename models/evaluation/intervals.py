"""Intervals by the bootstrap: how far a figure may be from what other users would have given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 4 if abs(self.value) < 1 else 2
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Return the mean of values, one per user, resampled by user; NaN are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Estimate(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    # How often each is drawn says all that there is to know of a resample.
    means = [
        rng.multinomial(len(known), np.full(len(known), 1 / len(known))) @ known / len(known)
        for _ in range(N_RESAMPLES)
    ]
    return _estimate(float(known.mean()), np.array(means))


def difference(one: NDArray[np.float64], other: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Return the mean of one minus the other, of the same users in the same order."""
    return mean(one - other, seed)


def of_statistic(
    statistic: Callable[..., float], *columns: NDArray[Any], seed: int = 0
) -> Estimate:
    """Return a statistic of several columns, resampled by row.

    A resample without both classes, for which it raises ValueError, is drawn again. Raises
    ValueError where it does for all rows, as for values that are not finite.
    """
    value = statistic(*columns)
    rng, n = np.random.default_rng(seed), len(columns[0])
    values: list[float] = []
    while len(values) < N_RESAMPLES:
        rows = rng.integers(0, n, n)
        try:
            values.append(statistic(*(column[rows] for column in columns)))
        except ValueError:
            continue
    return _estimate(value, np.array(values))


def _estimate(value: float, resampled: NDArray[np.float64]) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
