"""LearntItems: a user model's vectors of the catalogue's items, kept beside the encoder's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.item_index import ItemIndex, Vectors
from models.item_vectors import ItemVectors
from models.slab import Rows
from models.user_model import UserModel


class LearntItems:
    """By the catalogue's rows; it tells of every vector that it puts and drops."""

    def __init__(self, model: UserModel, index_factory: Callable[[int], ItemIndex]) -> None:
        self.model = model
        self._factory = index_factory
        self._lock = threading.RLock()
        self.clear()

    def put(self, rows: Rows, item_ids: Sequence[str], vectors: Vectors) -> None:
        """Learn of items by the encoder's unit vectors, shape (n, encoder's dim)."""
        if len(rows):
            self._vectors.put(rows, self.model.items(item_ids, vectors))

    def drop(self, rows: Rows) -> None:
        self._vectors.drop(rows)

    def clear(self) -> None:
        self._vectors = ItemVectors(self.model.dim, self._factory, self._lock, centring=False)

    def rebuild(self, quick: bool) -> None:
        self._vectors.rebuild(quick)

    def vectors(self, rows: Rows) -> Vectors:
        """Return learnt unit vectors, shape (n, dim); zero where there is none."""
        with self._lock:
            return self._vectors.centred(rows)

    def search(
        self, queries: Vectors, k: int, allowed: NDArray[np.bool_], n_allowed: int
    ) -> tuple[Vectors, Rows]:
        """Return scores and rows, both (n_queries, k), of rows allowed (a mask by row)."""
        with self._lock:
            return self._vectors.search(queries, k, allowed, n_allowed)
