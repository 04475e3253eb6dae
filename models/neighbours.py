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


class NeighbourTable:
    """Co-occurrence by row. Counts of different times meet as logarithms moved to time zero."""

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._taken: dict[int, Taken] = {}
        self._n_users = np.zeros(0, np.float64)  # by row
        self._as_of_ms = np.zeros(0, np.int64)  # by row, 0 = unknown
        # By row: half of log2(users) as of time zero; infinite while unknown, so that C is 0.
        self._half_log_users = np.zeros(0, np.float64)
        # By row: log2(counts) as of time zero, less the row's own half: ready for the others'.
        self._log_counts: dict[int, NDArray[np.float64]] = {}

    def put(self, row: int, taken: Taken, n_users: float, as_of_ms: int) -> None:
        """Replace what is known of a row; neighbours may be rows of which nothing is known yet."""
        self._grow(max(row, int(taken.rows.max(initial=0))) + 1)
        self._taken[row] = taken
        self._n_users[row] = n_users
        self._as_of_ms[row] = as_of_ms
        moved = as_of_ms / self._half_life_ms
        half = (np.log2(n_users) + moved) / 2 if n_users > 0 else np.inf
        self._half_log_users[row] = half
        with np.errstate(divide="ignore"):
            self._log_counts[row] = np.log2(taken.counts.astype(np.float64)) + moved - half

    def _grow(self, n: int) -> None:
        known = len(self._half_log_users)
        self._n_users = grown(self._n_users, n)
        self._as_of_ms = grown(self._as_of_ms, n)
        self._half_log_users = grown(self._half_log_users, n)
        self._half_log_users[known:] = np.inf

    def drop(self, row: int) -> None:
        if self._taken.pop(row, None) is not None:
            self._n_users[row] = self._as_of_ms[row] = 0
            self._half_log_users[row] = np.inf
            del self._log_counts[row]

    def get(self, rows: Rows) -> tuple[Rows, NDArray[np.int64], NDArray[np.float32]]:
        """Return all neighbours of some rows, one after the other: the neighbours (t,), the place
        in ``rows`` of what each is one of (t,), and C = both / sqrt(users * users), at most 1 (t,).

        What has no known count of users, on either side, is left out until it has.
        """
        asked = rows.tolist()
        places = [place for place, row in enumerate(asked) if row in self._taken]
        if not places:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        taken = [self._taken[asked[place]].rows for place in places]
        others = np.concatenate(taken)
        log_c = np.concatenate([self._log_counts[asked[place]] for place in places])
        log_c -= self._half_log_users[others]
        c = np.exp2(np.minimum(log_c, 0)).astype(np.float32)
        known = c > 0
        of_each = np.repeat(np.array(places), [len(of_it) for of_it in taken])
        return others[known].astype(np.int64), of_each[known], c[known]

    def rows(self) -> Iterator[tuple[int, Taken, float, int]]:
        """Yield row, what is taken with it, its users, as of when."""
        for row, taken in self._taken.items():
            yield row, taken, float(self._n_users[row]), int(self._as_of_ms[row])
