"""Scored candidates -> the k to show, near-duplicates kept apart (maximal marginal relevance)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.item_index import Vectors


def pick_diverse(
    bounds: Sequence[tuple[int, int]],
    scores: NDArray[np.float32],
    vectors: Vectors,
    k: int,
    diversity: float,
) -> NDArray[np.int64]:
    """Return the positions of up to k picks of each shopper, best first, shopper by shopper.

    The candidates of a shopper lie between its ``bounds`` (start, end); scores (m,), vectors
    (m, dim) of unit length. Each pick is the largest of
    ``(1 - diversity) * score - diversity * nearest``: the score is stretched to 0..1 over the
    shopper's candidates, ``nearest`` is the cosine to the closest item already picked, 0 at
    least. With ``diversity`` 0 the order is that of the scores.
    """
    lengths = np.array([end - start for start, end in bounds], np.int64)
    width = int(lengths.max(initial=0))
    value = np.full((len(bounds), width), -np.inf, np.float32)
    alike = np.zeros((len(bounds), width, width), np.float32)
    for shopper, (start, end) in enumerate(bounds):
        n = end - start
        if n:
            value[shopper, :n] = (1 - diversity) * _stretched(scores[start:end])
            if diversity:
                of_it = vectors[start:end]
                alike[shopper, :n, :n] = diversity * (of_it @ of_it.T)
    each = np.arange(len(bounds))
    nearest = np.zeros_like(value)
    picks = np.empty((len(bounds), min(k, width)), np.int64)
    for place in range(picks.shape[1]):
        best = (value - nearest).argmax(axis=1)
        picks[:, place] = best
        value[each, best] = -np.inf
        np.maximum(nearest, alike[each, best], out=nearest)
    picks += np.array([start for start, _ in bounds], np.int64)[:, None]
    # A shopper with fewer candidates than places has picked them all before the others are full.
    return picks[np.arange(picks.shape[1]) < lengths[:, None]]


def _stretched(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = scores.min(), scores.max()
    return np.asarray((scores - low) / ((high - low) or 1), np.float32)
