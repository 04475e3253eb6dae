"""Shoppers: the profiles of a micro-batch made ready to rank, in columns.

Everything is held in columns over all shoppers of the batch, so that the number of array
operations does not grow with them. An *element* is one of the evidence of one shopper; the
elements of shopper ``i`` are ``starts[i]`` to ``starts[i + 1]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evidence import Evidence
from models.item_index import Vectors
from models.profile import Profile
from models.slab import Rows


@dataclass(frozen=True, slots=True)
class Shoppers:
    """A micro-batch made ready to rank: b shoppers with e elements.

    ``owners`` (e,), ``rows`` (e,), ``coefficients`` (e,) and ``vectors`` (e, dim, centred) are of
    the elements; ``long`` and ``short`` (b, dim) the centred interests, ``queries`` (b, dim) the
    u of models/hybrid.py with ``long_shares`` and ``short_shares`` (b,) the interests' weights in
    it, ``reach`` (b,) that of the evidence.
    """

    profiles: Sequence[Profile]
    evidences: Sequence[Evidence]
    starts: NDArray[np.int64]
    owners: NDArray[np.int64]
    rows: Rows
    coefficients: NDArray[np.float32]
    vectors: Vectors
    long: Vectors
    short: Vectors
    queries: Vectors
    long_shares: NDArray[np.float32]
    short_shares: NDArray[np.float32]
    reach: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.profiles)

    def elements(self, shopper: int) -> slice:
        return slice(int(self.starts[shopper]), int(self.starts[shopper + 1]))

    @property
    def against(self) -> NDArray[np.bool_]:
        """Return which shoppers are against anything, (b,)."""
        return np.bincount(self.owners, self.coefficients < 0, len(self)) > 0

    @property
    def is_blank(self) -> NDArray[np.bool_]:
        """Return for which shoppers nothing speaks for one item before another, (b,)."""
        is_blank: NDArray[np.bool_] = ~self.queries.any(axis=1) & (np.diff(self.starts) == 0)
        return is_blank
