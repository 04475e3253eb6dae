"""A catalogue in plain dictionaries and brute force: slow, and easy to believe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.item_index import PADDING, Vectors
from models.slab import Rows


class FakeCatalogue:
    def __init__(self, vectors: Mapping[str, Sequence[float]], dim: int) -> None:
        self._ids = list(vectors)
        self._row = {item_id: row for row, item_id in enumerate(self._ids)}
        self._raw = np.asarray(list(vectors.values()), np.float32).reshape(-1, dim)
        self._gone = np.zeros(len(self._ids), np.bool_)
        self._mean = self._raw.mean(axis=0) if len(self._ids) else np.zeros(dim, np.float32)
        self._centred = _unit(self._raw - self._mean)
        self._neighbours: dict[int, tuple[Rows, NDArray[np.float32]]] = {}
        self._popularity: dict[str | None, dict[str, float]] = {}

    def put_neighbours(self, item_id: str, strengths: Mapping[str, float]) -> None:
        rows = self.rows(list(strengths))
        self._neighbours[self._row[item_id]] = rows, np.asarray([*strengths.values()], np.float32)

    def put_popularity(self, counts: Mapping[str, float], region: str | None = None) -> None:
        self._popularity[region] = dict(counts)

    def remove(self, item_ids: Sequence[str]) -> None:
        self._gone[self.rows(item_ids)] = True

    def __len__(self) -> int:
        return int((~self._gone).sum())

    def rows(self, item_ids: Sequence[str]) -> Rows:
        return np.asarray([self._row.get(item_id, PADDING) for item_id in item_ids], np.int64)

    def item_id(self, row: int) -> str:
        return self._ids[row]

    def recommendable(self, rows: Rows) -> NDArray[np.bool_]:
        return ~self._gone[rows]

    def centred(self, rows: Rows) -> Vectors:
        found = self._centred[rows] if len(self._ids) else np.zeros((len(rows), self._raw.shape[1]))
        return np.where((rows >= 0)[:, None], found, 0).astype(np.float32)

    def centre(self, vectors: Vectors, weights: NDArray[np.float32]) -> Vectors:
        return _unit(vectors - weights[:, None] * self._mean)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        scores = queries @ self._centred.T
        scores[:, self._gone] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(scores, order, axis=1)
        return found, np.where(np.isinf(found), PADDING, order)

    def neighbours(self, row: int) -> tuple[Rows, NDArray[np.float32]]:
        return self._neighbours.get(row, (np.empty(0, np.int64), np.empty(0, np.float32)))

    def popular(self, k: int, region: str | None, now_ms: int) -> Rows:
        by_region = sorted(self._popularity.get(region, {}).items(), key=lambda x: -x[1])
        everywhere = sorted(self._popularity.get(None, {}).items(), key=lambda x: -x[1])
        ids = [item_id for item_id, _ in by_region + everywhere] + self._ids[::-1]
        rows = self.rows(list(dict.fromkeys(ids)))
        return rows[~self._gone[rows]][:k]

    def new_arrivals(self, k: int, now_ms: int) -> Rows:
        rows = np.arange(len(self._ids))[::-1]
        return rows[~self._gone[rows]][:k]


def _unit(vectors: NDArray[np.float32]) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 1e-6, norms, np.inf), np.float32)
