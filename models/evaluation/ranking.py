"""Metrics of ranked lists, one value per user, so that they can be averaged and resampled.

A list is an array of item numbers, best first; -1 pads lists that are shorter. What is to be found
is one item a user (leave one out) or several (a next basket). Definitions as in Krichene and
Rendle, "On Sampled Metrics for Item Recommendation" (KDD 2020), on the full ranking; and Castells,
Hurley and Vargas, "Novelty and Diversity in Recommender Systems" (2015), for what lists are like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Lists = NDArray[np.int64]
PerUser = NDArray[np.float64]
PADDING = -1


def hits(lists: Lists, targets: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Return where the lists (u, k) hold one of their user's targets, shape (u, k).

    Raises ValueError when a user has no target: of such a user nothing can be found.
    """
    if len(lists) != len(targets):
        raise ValueError(f"expected targets of {len(lists)} lists, got those of {len(targets)}")
    if any(len(wanted) == 0 for wanted in targets):
        raise ValueError("expected at least one target per list")
    lengths = np.fromiter(map(len, targets), np.int64, len(targets))
    owners = np.repeat(np.arange(len(targets)), lengths)
    wanted = np.concatenate(targets) if len(targets) else np.empty(0, np.int64)
    # One number for (user, item), so that one search answers for all; what padding becomes, one
    # less than an owner's first, is the number of no item.
    width = 2 + max(int(wanted.max(initial=0)), int(lists.max(initial=0)))
    of_targets = owners * width + wanted
    of_lists = np.arange(len(lists))[:, None] * width + lists
    return np.isin(of_lists, of_targets)


def recall(found: NDArray[np.bool_], n_targets: NDArray[np.int64], k: int) -> PerUser:
    """Return the share of the targets among the first k; with one target this is the hit rate."""
    return np.asarray(found[:, :k].sum(axis=1) / np.minimum(n_targets, k), np.float64)


def ndcg(found: NDArray[np.bool_], n_targets: NDArray[np.int64], k: int) -> PerUser:
    """Return the discounted gain of the first k over the largest possible (binary relevance)."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    depth = min(k, found.shape[1])
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(n_targets, k)]
    return np.asarray(found[:, :depth] @ discount[:depth] / ideal, np.float64)


def reciprocal_rank(found: NDArray[np.bool_], k: int) -> PerUser:
    """Return 1 over the place of the first target among the first k, 0 where there is none."""
    first = found[:, :k].argmax(axis=1)
    return np.where(found[:, :k].any(axis=1), 1 / (1.0 + first), 0.0)


def graded_ndcg(
    grades: Sequence[NDArray[np.float64]], k: int, ideal: Sequence[NDArray[np.float64]]
) -> PerUser:
    """Return NDCG@k of lists of grades, best first, against all grades of each (gain 2^g - 1)."""
    return np.array(
        [
            _gain(list_, k) / best if (best := _gain(-np.sort(-all_), k)) > 0 else 0.0
            for list_, all_ in zip(grades, ideal, strict=True)
        ]
    )


def _gain(grades: NDArray[np.float64], k: int) -> float:
    gains = 2.0 ** grades[:k] - 1
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def coverage(lists: Lists, n_items: int) -> float:
    """Return the share of the catalogue that is shown to anybody."""
    return len(np.unique(lists[lists >= 0])) / n_items


def gini(lists: Lists, n_items: int) -> float:
    """Return how unequally showings are spread over the catalogue: 0 alike, 1 one item alone."""
    shown = np.sort(np.bincount(lists[lists >= 0], minlength=n_items)).astype(np.float64)
    if not shown.sum():
        return 0.0
    ranks = np.arange(1, n_items + 1)
    return float(((2 * ranks - n_items - 1) * shown).sum() / (n_items * shown.sum()))


def novelty(lists: Lists, n_takers: NDArray[np.int64]) -> PerUser:
    """Return the mean surprise of each list in bits: -log2 of the share of acts an item has.

    An item that nobody took counts as one act would.
    """
    share = np.maximum(n_takers, 1) / max(int(n_takers.sum()), 1)
    return _mean_of_shown(lists, -np.log2(share))


def diversity(lists: Lists, vectors: NDArray[np.float32]) -> PerUser:
    """Return 1 - the mean cosine of two items of each list; ``vectors`` (n_items, dim) are unit.

    A list with fewer than two items has none, NaN.
    """
    n_shown = (lists >= 0).sum(axis=1)
    sums = np.stack([vectors[one[one >= 0]].sum(axis=0) for one in lists])
    # |sum|^2 = n + the cosines of all ordered pairs.
    pairs = n_shown * (n_shown - 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, 1 - ((sums**2).sum(axis=1) - n_shown) / pairs, np.nan)


def _mean_of_shown(lists: Lists, values: NDArray[np.float64]) -> PerUser:
    shown = lists >= 0
    of_each = np.where(shown, values[np.where(shown, lists, 0)], 0.0)
    return np.asarray(of_each.sum(axis=1) / np.maximum(shown.sum(axis=1), 1), np.float64)


#: (found, n_targets) -> a value per user.
Metric = Callable[[NDArray[np.bool_], NDArray[np.int64]], PerUser]


def per_user(
    lists: Lists, targets: Sequence[NDArray[np.int64]], ks: Sequence[int]
) -> dict[str, PerUser]:
    """Return recall, NDCG and reciprocal rank at each k, by names such as ``recall_at_10``."""
    found = hits(lists, targets)
    n_targets = np.fromiter(map(len, targets), np.int64, len(targets))
    values: dict[str, PerUser] = {}
    for k in ks:
        values[f"recall_at_{k}"] = recall(found, n_targets, k)
        values[f"ndcg_at_{k}"] = ndcg(found, n_targets, k)
        values[f"mrr_at_{k}"] = reciprocal_rank(found, k)
    return values
