"""Popularity: items by decayed popularity, in all and by region, and by age."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from models.rows import grown
from models.slab import Rows

#: Sorting fewer than this costs nothing worth saving.
_SMALL = 5000
#: A large order is sorted anew this often at most, and more rarely the larger it is.
_REFRESH_MS = 1000
_REFRESH_MS_PER_ROW = 0.01


class Order:
    """Rows by a key that changes, best first; large ones lag a second or more behind."""

    def __init__(self) -> None:
        self._keys: dict[int, float] = {}
        self._order: Rows = np.empty(0, np.int64)
        self._changed = False
        self._sorted_ms = 0

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, row: int, key: float) -> None:
        if self._keys.get(row) != key:
            self._keys[row] = key
            self._changed = True

    def drop(self, row: int) -> None:
        if self._keys.pop(row, None) is not None:
            self._changed = True

    def best_first(self, now_ms: int) -> Rows:
        """Return the rows, largest key first, of equal keys the larger row; shape (n,)."""
        n = len(self._keys)
        rest_ms = max(_REFRESH_MS, n * _REFRESH_MS_PER_ROW) if n >= _SMALL else 0
        if self._changed and abs(now_ms - self._sorted_ms) >= rest_ms:
            rows = np.fromiter(self._keys.keys(), np.int64, n)
            keys = np.fromiter(self._keys.values(), np.float64, n)
            self._order = rows[np.lexsort((-rows, -keys))]
            self._changed, self._sorted_ms = False, now_ms
        return self._order


class Popularity:
    """Popularity by row, of different times: ordered by its logarithm moved to time zero."""

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._facts: dict[int, tuple[float, Mapping[str, float], int]] = {}
        self._everywhere = Order()
        self._regions: dict[str, Order] = {}
        self._counts = np.zeros(0, np.float64)  # by row, as of ``_as_of_ms``
        self._as_of_ms = np.zeros(0, np.int64)  # by row

    def put(self, row: int, popularity: float, regions: Mapping[str, float], as_of_ms: int) -> None:
        """Replace what is known of a row."""
        for region in self._facts.get(row, (0.0, {}, 0))[1].keys() - regions.keys():
            self._drop_from(region, row)
        self._facts[row] = (popularity, regions, as_of_ms)
        self._grow(row + 1)
        self._counts[row], self._as_of_ms[row] = popularity, as_of_ms
        self._set(self._everywhere, row, popularity, as_of_ms)
        for region, share in regions.items():
            self._set(self._regions.setdefault(region, Order()), row, share, as_of_ms)

    def drop(self, row: int) -> None:
        for region in self._facts.pop(row, (0.0, {}, 0))[1]:
            self._drop_from(region, row)
        self._everywhere.drop(row)
        self._grow(row + 1)
        self._counts[row] = 0

    def counts(self, rows: Rows, now_ms: int) -> NDArray[np.float64]:
        """Return the popularity of each row as of now, (n,); 0 where unknown."""
        self._grow(int(rows.max(initial=0)) + 1)
        ages = (now_ms - self._as_of_ms[rows]) / self._half_life_ms
        # A count from ahead of us, by a clock that is behind, is as of now.
        return np.where(rows < 0, 0.0, self._counts[rows] * np.exp2(-ages.clip(min=0)))

    def best_first(self, region: str | None, now_ms: int) -> list[Rows]:
        """Return the region's order, if it has one, and that of all."""
        orders = [self._everywhere.best_first(now_ms)]
        if region is not None and region in self._regions:
            orders.insert(0, self._regions[region].best_first(now_ms))
        return orders

    def rows(self) -> Iterator[tuple[int, float, Mapping[str, float], int]]:
        """Yield row, popularity, its regions, as of when."""
        for row, (popularity, regions, as_of_ms) in self._facts.items():
            yield row, popularity, regions, as_of_ms

    def _grow(self, n: int) -> None:
        self._counts = grown(self._counts, n)
        self._as_of_ms = grown(self._as_of_ms, n)

    def _set(self, order: Order, row: int, popularity: float, as_of_ms: int) -> None:
        if popularity > 0:
            order.put(row, float(np.log2(popularity)) + as_of_ms / self._half_life_ms)
        else:
            order.drop(row)

    def _drop_from(self, region: str, row: int) -> None:
        order = self._regions[region]
        order.drop(row)
        if not len(order):
            del self._regions[region]
