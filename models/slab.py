"""Slab: vectors by row number, packed without holes, so that one matmul sees them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models import native

Rows = NDArray[np.int64]

_FIRST_CAPACITY = 256


class Slab:
    """Packed vectors; putting, replacing and dropping cost nothing per vector held.

    A dropped vector's place is taken by the last one, so order means nothing. Row numbers should
    be small: a table as long as the largest says where each vector lies.
    """

    def __init__(self, dim: int, dtype: DTypeLike = np.float32) -> None:
        self.dim = dim
        self._n = 0
        self._packed: NDArray[Any] = np.empty((_FIRST_CAPACITY, dim), dtype)
        self._rows: Rows = np.empty(_FIRST_CAPACITY, np.int64)
        self._place: Rows = np.full(_FIRST_CAPACITY, -1, np.int64)

    def __len__(self) -> int:
        return self._n

    @property
    def rows(self) -> Rows:
        """Return the row of each vector of ``vectors``, shape (n,); a view until the next write."""
        return self._rows[: self._n]

    @property
    def vectors(self) -> NDArray[Any]:
        """Return the vectors, shape (n, dim); a view until the next write."""
        return self._packed[: self._n]

    @property
    def places(self) -> Rows:
        """Return by row where in ``vectors`` it lies, below 0 for nowhere; as long as it need be,
        and a view until the next write."""
        return self._place

    def put(self, rows: Rows, vectors: NDArray[Any]) -> None:
        """Add or replace; of a row given twice the last vector stays."""
        if len(rows) == 0:
            return
        self._make_room(int(rows.max()) + 1, self._n + len(rows))
        rows, last = _last_of_each(rows)
        places = self._place[rows]
        new = places < 0
        places[new] = self._n + np.arange(np.count_nonzero(new))
        self._n += int(np.count_nonzero(new))
        self._packed[places] = vectors[last]
        self._rows[places] = rows
        self._place[rows] = places

    def drop(self, rows: Rows) -> None:
        """Forget rows; unknown ones are ignored."""
        gone = np.unique(self._places(rows))
        gone = gone[gone >= 0]
        kept = self._n - len(gone)
        self._place[self._rows[gone]] = -1
        holes = gone[gone < kept]
        tail = np.ones(self._n - kept, bool)
        tail[gone[gone >= kept] - kept] = False
        movers = np.flatnonzero(tail) + kept
        self._packed[holes] = self._packed[movers]
        self._rows[holes] = self._rows[movers]
        self._place[self._rows[holes]] = holes
        self._n = kept

    def has(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which rows have a vector, shape (n,)."""
        return self._places(rows) >= 0

    def get(self, rows: Rows) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return copies, shape (n, dim), zero where unknown, and which are known, shape (n,)."""
        places = self._places(rows)
        known = places >= 0
        # Clipped, what is not known takes the first; and what is known is copied faster.
        found = self._packed.take(places, axis=0, mode="clip")
        if not known.all():
            found[~known] = 0
        return found, known

    def get_one(self, row: int) -> NDArray[Any] | None:
        """Return a view, shape (dim,), until the next write; None where unknown."""
        if not 0 <= row < len(self._place) or (place := self._place[row]) < 0:
            return None
        vector: NDArray[Any] = self._packed[place]
        return vector

    def _places(self, rows: Rows) -> Rows:
        if native.is_on() and rows.flags.c_contiguous:
            return native.places_of(rows, self._place)
        inside = (rows >= 0) & (rows < len(self._place))
        return np.where(inside, self._place[np.where(inside, rows, 0)], -1)

    def _make_room(self, n_rows: int, n_vectors: int) -> None:
        if n_rows > len(self._place):
            longer = np.full(max(n_rows, 2 * len(self._place)), -1, np.int64)
            longer[: len(self._place)] = self._place
            self._place = longer
        if n_vectors > len(self._packed):
            capacity = max(n_vectors, 2 * len(self._packed))
            packed = np.empty((capacity, self.dim), self._packed.dtype)
            packed[: self._n] = self.vectors
            rows = np.empty(capacity, np.int64)
            rows[: self._n] = self.rows
            self._packed, self._rows = packed, rows


def _last_of_each(rows: Rows) -> tuple[Rows, Rows]:
    """Return the distinct rows and where each was given last."""
    unique, from_end = np.unique(rows[::-1], return_index=True)
    if len(unique) == len(rows):
        return rows, np.arange(len(rows))
    return unique, len(rows) - 1 - from_end
