"""ItemIndex: nearest items by inner product. ExactIndex is the reference answer."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.slab import Rows, Slab

Vectors = NDArray[np.float32]

#: What fills a result row when fewer than k items exist; its score is -inf.
PADDING = -1


class ItemIndex(Protocol):
    """Answers nearest-item queries over unit vectors; items are numbered by the catalogue.

    Not thread-safe: the catalogue's lock is around every call.
    """

    @property
    def dim(self) -> int: ...

    @property
    def slab(self) -> Slab:
        """Return the vectors as they were put, by row."""

    def __len__(self) -> int:
        """Return how many items can be found."""

    def upsert(self, rows: Rows, vectors: Vectors) -> None:
        """Add or replace; rows (n,), vectors (n, dim) of unit length; a repeated row: the last.

        Raises ValueError when the vectors have another dimension.
        """

    def remove(self, rows: Rows) -> None:
        """Forget rows; unknown ones are ignored."""

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors as they were put, shape (n, dim); zero for rows not held."""

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, both (n_queries, k), best first, PADDING where none is left."""


class ExactIndex:
    """Brute force in numpy: the reference answer, and quick for some thousand items."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.slab = Slab(dim)

    def __len__(self) -> int:
        return len(self.slab)

    def upsert(self, rows: Rows, vectors: Vectors) -> None:
        check_dim(self.dim, vectors)
        self.slab.put(rows, vectors)

    def remove(self, rows: Rows) -> None:
        self.slab.drop(rows)

    def vectors(self, rows: Rows) -> Vectors:
        return self.slab.get(rows)[0]

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        check_dim(self.dim, queries)
        scores, rows = nothing_found(len(queries), k)
        n_found = min(k, len(self))
        if n_found == 0:
            return scores, rows
        every = queries @ self.slab.vectors.T  # (n_queries, n_items)
        top = np.argpartition(every, len(self) - n_found, axis=1)[:, -n_found:]
        best_first = np.argsort(-np.take_along_axis(every, top, 1), axis=1, kind="stable")
        top = np.take_along_axis(top, best_first, 1)
        scores[:, :n_found] = np.take_along_axis(every, top, 1)
        rows[:, :n_found] = self.slab.rows[top]
        return scores, rows


def nothing_found(n_queries: int, k: int) -> tuple[Vectors, Rows]:
    """Return the answer of an empty index: scores of -inf and rows of PADDING."""
    scores = np.full((n_queries, k), -np.inf, np.float32)
    return scores, np.full((n_queries, k), PADDING, np.int64)


def check_dim(dim: int, vectors: NDArray[np.floating]) -> None:
    """Raise ValueError unless vectors are (n, dim)."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"expected vectors of shape (n, {dim}), got {vectors.shape}")
