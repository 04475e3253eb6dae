"""Neighbours and popularity of items by row: decayed counts, compared at one common time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.rows import grown
from models.slab import Rows


@dataclass(frozen=True, slots=True)
class NeighbourFacts:
    """Decayed counts of one item as of ``as_of_ms``.

    ``n_users`` took the item; ``neighbours`` are (other item, users who took both).
    ``popularity`` decays faster, and is split by region in ``regions``.
    """

    item_id: str
    as_of_ms: int
    n_users: float
    neighbours: Sequence[tuple[str, float]] = ()
    popularity: float = 0.0
    regions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """The other rows taken with an item, shape (n,), and how many users took both, shape (n,)."""

    rows: NDArray[np.int32]
    counts: NDArray[np.float32]


NOTHING_TAKEN = Taken(np.empty(0, np.int32), np.empty(0, np.float32))


class NeighbourTable:
    """Co-occurrence by row. Counts of different times meet as logarithms moved to time zero."""

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._taken: dict[int, Taken] = {}
        self._n_users = np.zeros(0, np.float64)  # by row
        self._as_of_ms = np.zeros(0, np.int64)  # by row, 0 = unknown

    def put(self, row: int, taken: Taken, n_users: float, as_of_ms: int) -> None:
        """Replace what is known of a row; neighbours may be rows of which nothing is known yet."""
        self._n_users = grown(self._n_users, row + 1)
        self._as_of_ms = grown(self._as_of_ms, row + 1)
        self._taken[row] = taken
        self._n_users[row] = n_users
        self._as_of_ms[row] = as_of_ms

    def drop(self, row: int) -> None:
        if self._taken.pop(row, None) is not None:
            self._n_users[row] = self._as_of_ms[row] = 0

    def get(self, row: int) -> tuple[Rows, NDArray[np.float32]]:
        """Return neighbours, shape (n,), and their C = both / sqrt(users * users), at most 1.

        A neighbour whose own count of users is not known yet is left out until it is.
        """
        taken = self._taken.get(row, NOTHING_TAKEN)
        rows = taken.rows[taken.rows < len(self._n_users)].astype(np.int64)
        counts = taken.counts[taken.rows < len(self._n_users)]
        known = self._n_users[rows] > 0
        rows, counts = rows[known], counts[known]
        if len(rows) == 0 or self._n_users[row] <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        # both and users decay alike, so in C the times cancel but for half their difference.
        ages = (self._as_of_ms[row] - self._as_of_ms[rows]) / self._half_life_ms
        log_c = np.log2(counts) - (np.log2(self._n_users[row]) + np.log2(self._n_users[rows])) / 2
        return rows, np.minimum(np.exp2(log_c + ages / 2), 1).astype(np.float32)

    def rows(self) -> Iterator[tuple[int, Taken, float, int]]:
        """Yield row, what is taken with it, its users, as of when."""
        for row, taken in self._taken.items():
            yield row, taken, float(self._n_users[row]), int(self._as_of_ms[row])
