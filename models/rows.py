"""Arrays by row number that grow, and the rows taken from several orders."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.slab import Rows

Scalar = TypeVar("Scalar", bound=np.generic)


def grown(array: NDArray[Scalar], n: int) -> NDArray[Scalar]:
    """Return the array, or one at least twice as long with zeros behind, holding n places."""
    if n <= len(array):
        return array
    longer = np.zeros(max(n, 2 * len(array), 256), array.dtype)
    longer[: len(array)] = array
    return longer


def first_allowed(order: Rows, allowed: NDArray[np.bool_], k: int) -> Rows:
    """Return the first k rows of an order that are allowed (a mask by row)."""
    found = np.empty(0, np.int64)
    start, block = 0, 4 * k + 64
    while start < len(order) and len(found) < k:
        rows = order[start : start + block]
        found = np.concatenate([found, rows[allowed[rows]]])
        start, block = start + block, 4 * block
    return found[:k]


def merged(orders: list[Rows], k: int) -> Rows:
    """Return the first k distinct rows of several orders, one after the other."""
    rows = np.concatenate(orders)
    first = np.sort(np.unique(rows, return_index=True)[1])
    return rows[first][:k]
