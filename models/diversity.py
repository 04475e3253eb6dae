"""Scored candidates -> the k to show, near-duplicates kept apart (maximal marginal relevance)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.item_index import Vectors


def pick_diverse(
    scores: NDArray[np.float32], vectors: Vectors, k: int, diversity: float
) -> NDArray[np.int64]:
    """Return up to k positions, best first; scores (n,), vectors (n, dim) of unit length.

    Each pick is the largest of ``(1 - diversity) * score - diversity * nearest``: the score is
    stretched to 0..1 over the candidates, ``nearest`` is the cosine to the closest item already
    picked, 0 at least. With ``diversity`` 0 the order is that of the scores.
    """
    k = min(k, len(scores))
    order = np.argsort(-scores, kind="stable")
    if diversity == 0 or k < 2:
        return order[:k]
    low, high = float(scores[order[-1]]), float(scores[order[0]])
    # Divided by ``diversity``, which spares a multiplication per pick.
    relevance = (scores - low) * np.float32((1 - diversity) / diversity / ((high - low) or 1.0))
    nearest = np.zeros(len(scores), np.float32)
    picked = np.empty(k, np.int64)
    best = int(order[0])
    for place in range(k):
        picked[place] = best
        relevance[best] = -np.inf
        # One matrix-vector product a pick: the full Gram matrix is mostly never looked at.
        np.maximum(nearest, vectors @ vectors[best], out=nearest)
        best = int((relevance - nearest).argmax())
    return picked
