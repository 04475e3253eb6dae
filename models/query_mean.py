"""QueryMean: what all queries have in common, taken off each."""

from __future__ import annotations

import numpy as np

from models.item_index import Vectors

#: The mean of a few queries says more of them than of queries: it is shrunk towards zero as if
#: there were this many more, of zeros.
_PRIOR = 20
#: Once so many have been seen, half of their weight is forgotten: shops and seasons change.
_REMEMBERED = 10_000


class QueryMean:
    """The mean of the distinct queries seen; an encoder's queries lie elsewhere than its items.

    Distinct, since a shop where every other search is for one phone would else take that phone
    off all that is like it.
    """

    def __init__(self, dim: int) -> None:
        self._sum: Vectors = np.zeros(dim, np.float32)
        self._n = 0
        self._seen: set[int] = set()

    def centred(self, queries: Vectors) -> Vectors:
        """See some queries, unit vectors (n, dim), and return them centred, unit again."""
        for query in queries:
            self._see(query)
        centred = queries - self._sum / np.float32(self._n + _PRIOR)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        # What is left of a vector equal to the mean is rounding, not a direction.
        return np.where(lengths > 1e-4, centred / np.maximum(lengths, 1e-4), 0).astype(np.float32)

    def _see(self, query: Vectors) -> None:
        known = hash(query.tobytes())
        if known in self._seen:
            return
        self._seen.add(known)
        self._sum += query
        self._n += 1
        if self._n >= _REMEMBERED:
            self._sum, self._n = self._sum / np.float32(2), self._n // 2
            self._seen.clear()
