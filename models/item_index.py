"""ItemIndex: nearest items by inner product. ExactIndex is the reference answer."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

#: What fills a result row when fewer than k items exist.
PADDING = -1


class ItemIndex(Protocol):
    """Answers nearest-item queries over unit vectors; items are numbered by the catalogue."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int:
        """Return how many items can be found."""

    def upsert(self, rows: Rows, vectors: Vectors) -> None:
        """Add or replace; rows (n,), vectors (n, dim) of unit length."""

    def remove(self, rows: Rows) -> None:
        """Forget rows; unknown ones are ignored."""

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, both (n_queries, k), best first, PADDING where none is left."""
