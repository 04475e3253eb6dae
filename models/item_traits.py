"""ItemTraits: what a ranker reads of the shop's own words about items, in columns by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.item_index import PADDING
from models.items import ItemFacts
from models.rows import grown
from models.slab import Rows


@dataclass(frozen=True, slots=True)
class Traits:
    """Of n items at one moment, all (n,).

    ``log_users`` and ``log_popularity`` are log2 of one more than the decayed counts, ``log_days``
    the same of the days since an item appeared. ``log_price`` is NaN where no price is known;
    ``category`` and ``brand`` are numbers, PADDING where there is none.
    """

    log_users: NDArray[np.float32]
    log_popularity: NDArray[np.float32]
    log_days: NDArray[np.float32]
    log_price: NDArray[np.float32]
    category: NDArray[np.int64]
    brand: NDArray[np.int64]


class ItemTraits:
    """Arrays by row, so that the traits of a batch's candidates cost a few array operations."""

    def __init__(self) -> None:
        self._log_price = np.zeros(0, np.float32)
        self._appeared_ms = np.zeros(0, np.int64)
        self._category = np.zeros(0, np.int32)
        self._brand = np.zeros(0, np.int32)
        self._number_of: dict[str, int] = {}

    def put(self, rows: Sequence[int], items: Sequence[ItemFacts]) -> None:
        """Replace what is known of rows."""
        if not rows:
            return
        self._grow(max(rows) + 1)
        for row, item in zip(rows, items, strict=True):
            price = item.price or 0
            self._log_price[row] = np.log(price) if price > 0 else np.nan
            self._appeared_ms[row] = item.appeared_ms
            # Of a path the last part says most.
            self._category[row] = self._number(item.categories[-1] if item.categories else None)
            self._brand[row] = self._number(item.brand)

    def get(
        self, rows: Rows, users: NDArray[np.float64], popularity: NDArray[np.float64], now_ms: int
    ) -> Traits:
        """Return the traits of given-out rows, PADDING among them, of which nothing is known;
        ``users`` and ``popularity`` (n,) are their decayed counts."""
        self._grow(int(rows.max(initial=0)) + 1)
        is_known = rows != PADDING
        days = (now_ms - self._appeared_ms[rows]).clip(min=0) / 86_400_000
        return Traits(
            log_users=np.log2(1 + users).astype(np.float32),
            log_popularity=np.log2(1 + popularity).astype(np.float32),
            log_days=np.log2(1 + np.where(is_known, days, 0)).astype(np.float32),
            log_price=np.where(is_known, self._log_price[rows], np.float32(np.nan)),
            category=np.where(is_known, self._category[rows], PADDING).astype(np.int64),
            brand=np.where(is_known, self._brand[rows], PADDING).astype(np.int64),
        )

    def _number(self, name: str | None) -> int:
        return PADDING if not name else self._number_of.setdefault(name, len(self._number_of))

    def _grow(self, n: int) -> None:
        before = len(self._log_price)
        self._log_price = grown(self._log_price, n)
        self._appeared_ms = grown(self._appeared_ms, n)
        self._category = grown(self._category, n)
        self._brand = grown(self._brand, n)
        # Of a row that nothing was said of: a neighbour that has not been described.
        self._log_price[before:] = np.nan
        self._category[before:] = self._brand[before:] = PADDING
