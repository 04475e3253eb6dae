"""Trends: how much more an item is taken of late than it usually is, as a factor by row.

What goes together says what suits a shopper; a trend says what its time has come for: Christmas in
November, and what is new. Popularity by itself would push the few items that everybody knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.rows import grown
from models.slab import Rows

#: Acts, by weight, that an item is taken to have had as expected: a few of late are no trend yet.
_EXPECTED = 0.5
#: Fewer rows are looked at whenever one has changed.
_SMALL = 5000
#: So many times more, or less, at most.
_MOST = 64.0


class Trends:
    """Two counts of the same acts by row, the one decaying faster; compared at the time of the
    newest of them, so that a log of last year is read as it was then."""

    def __init__(self, recent_half_life_ms: float, lasting_half_life_ms: float) -> None:
        self._half_lives_ms = recent_half_life_ms, lasting_half_life_ms
        self._recent = np.zeros(0, np.float64)
        self._lasting = np.zeros(0, np.float64)
        self._as_of_ms = np.zeros(0, np.int64)
        self._factors = np.ones(0, np.float32)
        self._power = 0.0  # that the factors were made with
        self._n_changed = 0

    def put(self, row: int, recent: float, lasting: float, as_of_ms: int) -> None:
        """Replace what is known of a row; ``lasting`` 0 is not known."""
        self._recent = grown(self._recent, row + 1)
        self._lasting = grown(self._lasting, row + 1)
        self._as_of_ms = grown(self._as_of_ms, row + 1)
        self._recent[row], self._lasting[row] = recent, lasting
        self._as_of_ms[row] = as_of_ms
        self._n_changed += 1

    def drop(self, row: int) -> None:
        if row < len(self._lasting):
            self.put(row, 0.0, 0.0, 0)

    def lasting(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Return the slower counts of rows that were put, (n,), as they were put."""
        return self._lasting[list(rows)]

    def factors(self, rows: Rows, power: float) -> NDArray[np.float32]:
        """Return the factors of rows, from 0, to a power, (n,); 1 is as usual, or not known.

        Of many rows a hundredth may have changed since they were made.
        """
        n = len(self._factors)
        if power != self._power or self._n_changed > (n // 100 if n >= _SMALL else 0):
            # By row and not by pair of items: of these a list has thousands.
            self._factors = self._made() ** np.float32(power)
            self._power, self._n_changed = power, 0
        beyond = int(rows.max(initial=-1)) + 1 - len(self._factors)
        if beyond > 0:
            self._factors = np.concatenate([self._factors, np.ones(beyond, np.float32)])
        return self._factors[rows]

    def _made(self) -> NDArray[np.float32]:
        known = np.flatnonzero(self._lasting > 0)
        factors = np.ones(len(self._lasting), np.float32)
        if len(known):
            ages_ms = self._as_of_ms[known].max() - self._as_of_ms[known]
            recent, lasting = (
                counts[known] * np.exp2(-ages_ms / half_life_ms)
                for counts, half_life_ms in zip(
                    (self._recent, self._lasting), self._half_lives_ms, strict=True
                )
            )
            recent = recent.clip(min=0)  # acts that speak against an item may prevail
            expected = lasting * (recent.sum() / lasting.sum())
            ratios = (recent + _EXPECTED) / (expected + _EXPECTED)
            factors[known] = ratios.clip(1 / _MOST, _MOST)
        return factors
