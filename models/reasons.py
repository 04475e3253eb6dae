"""Why the picked items were picked: the largest contributions to their scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models import native
from models.candidates import Pools, Together, bounds_of_each
from models.evidence import ElementKind, Evidence
from models.hybrid import HybridRule
from models.item_index import PADDING, Vectors
from models.profile import (
    SCORE_DIGITS,
    WEIGHT_DIGITS,
    Reason,
    ReasonKind,
    RecommendedItem,
    Source,
)
from models.ranking_features import GROUPS, Group
from models.shoppers import Shoppers

#: Reasons given per item at most, and the share of the score below which one is not worth saying.
MOST = 3
LEAST_SHARE = 0.05

#: What an element says through its text.
_TEXT_KIND: dict[ElementKind, ReasonKind] = {
    "item": "similar_to_item",
    "search": "matches_search",
    "interest": "matches_interest",
}
_EXTRAS: tuple[ReasonKind, ...] = (
    "long_term_interest",
    "recent_interest",
    "popular",
    "new_arrival",
)

_NOTHING = Reason("popular", 0.0)

#: The source of an item, by the kind of its weightiest reason.
SOURCE_OF: dict[ReasonKind, Source] = {
    "similar_to_item": "short_interest",
    "matches_search": "short_interest",
    "recent_interest": "short_interest",
    "matches_interest": "stated_interest",
    "long_term_interest": "long_interest",
    "taken_together": "taken_together",
    "popular": "popular",
    "new_arrival": "new_arrival",
}
#: What native code names things by.
_NATIVE_NAMES = (_TEXT_KIND, _EXTRAS, SOURCE_OF, _NOTHING)


def weightiest(
    picked: Pools,
    vectors: Vectors,
    shoppers: Shoppers,
    together: Together,
    rule: HybridRule,
    added: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what speaks most for each item picked, by columns, and its shares, both (m, MOST).

    ``vectors`` (m, dim) are the centred ones of the items picked. With ``width`` the most elements
    that a shopper has, a column is one of these: an element by its text, from 0 on; an element by
    what was taken together with it, from ``width`` on; one of ``_EXTRAS``, from twice that on.
    ``added`` (m, len(GROUPS)) is what each group of features added to a ranker's score; without it,
    what the hybrid's terms added to its own is told.
    """
    width = _width(shoppers.evidences)
    parts = np.zeros((len(picked.rows), 2 * width + len(_EXTRAS)), np.float32)
    bounds = bounds_of_each(picked.owners, len(shoppers))
    for shopper, (start, end) in enumerate(bounds):
        _by_text(parts[start:end], vectors[start:end], shoppers, shopper, width, rule)
    places = np.arange(len(shoppers.owners)) - shoppers.starts[shoppers.owners]
    own = np.flatnonzero(picked.history != PADDING)
    parts[picked.history[own], places[own]] = 0
    if added is None:
        # What a user model says is read off the newest acts too: an interest of the moment.
        fit = rule.learnt * shoppers.reach[picked.owners] * picked.fit
        fit[picked.history[own]] = 0
        parts[:, 2 * width + 1] += fit
    entries = np.flatnonzero(picked.entries != PADDING)
    elements = together.elements[entries]
    parts[picked.entries[entries], width + places[elements]] = (
        np.float32(1 - rule.text_share)
        * shoppers.coefficients[elements]
        * together.strengths[entries]
    )
    reach = shoppers.reach[picked.owners]
    parts[:, 2 * width + 2] = rule.popular * reach * picked.popular
    parts[:, 2 * width + 3] = rule.new_arrival * reach * picked.new_arrival
    np.maximum(parts, 0, out=parts)
    if added is not None:
        parts = _as_added(parts, added, width)
    parts /= np.maximum(parts.sum(axis=1, keepdims=True), 1e-12)
    top = np.argpartition(parts, -MOST, axis=1)[:, -MOST:]
    falling = np.argsort(-np.take_along_axis(parts, top, axis=1), axis=1)
    columns = np.take_along_axis(top, falling, axis=1)
    return columns, np.take_along_axis(parts, columns, axis=1)


def tell(
    item_ids: Sequence[str],
    scores: NDArray[np.float32],
    columns: NDArray[np.int64],
    shares: NDArray[np.float32],
    starts: Sequence[int],
    evidences: Sequence[Evidence],
) -> list[list[RecommendedItem]]:
    """Return by shopper the items picked, each with its reasons: the weightiest first, one at
    least.

    ``columns`` and ``shares`` are those of ``weightiest``; a shopper's begin at one of ``starts``
    (b + 1,).
    """
    if native.is_on():
        return native.tell(
            item_ids, scores, columns, shares, starts, evidences, LEAST_SHARE, _NATIVE_NAMES
        )
    width, of_columns, of_shares = _width(evidences), columns.tolist(), shares.tolist()
    of_scores = scores.tolist()
    lists = []
    for evidence, (start, end) in zip(evidences, pairwise(starts), strict=True):
        lists.append(items := list[RecommendedItem]())
        for at in range(start, end):
            reasons = _reasons(of_columns[at], of_shares[at], evidence, width)
            score, source = round(of_scores[at], SCORE_DIGITS), SOURCE_OF[reasons[0].kind]
            items.append(RecommendedItem(item_ids[at], at - start + 1, score, source, reasons))
    return lists


def _as_added(
    parts: NDArray[np.float32], added: NDArray[np.float32], width: int
) -> NDArray[np.float32]:
    """Return the parts with what a ranker's groups add in place of what the hybrid's terms do.

    Within texts, and within co-occurrence, what the elements add stays in proportion.
    """
    adds: dict[Group, NDArray[np.float32]] = dict(zip(GROUPS, np.maximum(added, 0).T, strict=True))
    told = np.zeros_like(parts)
    long, recent, popular, new = range(2 * width, 2 * width + len(_EXTRAS))
    # The interest sums speak through texts as well.
    by_text, by_pairs = np.r_[0:width, long, recent], np.r_[width : 2 * width]
    for columns, of_group in ((by_text, adds["text"]), (by_pairs, adds["together"])):
        of_it = parts[:, columns]
        total = of_it.sum(axis=1)
        is_split = total > 0
        told[:, columns] += of_it * (of_group / np.where(is_split, total, np.inf))[:, None]
        # No single act says it: it lies in what the shopper did as a whole.
        told[:, recent] += np.where(is_split, 0, of_group)
    told[:, recent] += adds["fit"]
    told[:, long] += adds["taste"]
    told[:, popular] += adds["popular"]
    told[:, new] += adds["new_arrival"]
    return told


def _width(evidences: Sequence[Evidence]) -> int:
    return max(map(len, evidences), default=0)


def _by_text(
    parts: NDArray[np.float32],
    vectors: Vectors,
    shoppers: Shoppers,
    shopper: int,
    width: int,
    rule: HybridRule,
) -> None:
    """Fill in what each element, and each of the two interests, contributes through texts."""
    elements = shoppers.elements(shopper)
    # What speaks against an item is no reason for one that is unlike it.
    weights = np.float32(rule.text_share) * shoppers.coefficients[elements].clip(min=0)
    parts[:, : len(weights)] = (vectors @ shoppers.vectors[elements].T) * weights
    reach = shoppers.reach[shopper]
    long = vectors @ shoppers.long[shopper]
    short = vectors @ shoppers.short[shopper]
    parts[:, 2 * width] = reach * shoppers.long_shares[shopper] * long
    parts[:, 2 * width + 1] = reach * shoppers.short_shares[shopper] * short


def _reasons(
    columns: list[int], shares: list[float], evidence: Evidence, width: int
) -> list[Reason]:
    reasons = []
    for column, share in zip(columns, shares, strict=True):
        if share < LEAST_SHARE:
            break
        weight = round(share, WEIGHT_DIGITS)
        if column >= 2 * width:
            reasons.append(Reason(_EXTRAS[column - 2 * width], weight))
            continue
        label = evidence.labels[column % width]
        kind = _TEXT_KIND[evidence.kinds[column]] if column < width else "taken_together"
        if kind == "matches_search":
            reasons.append(Reason(kind, weight, query=label))
        elif kind == "matches_interest":
            reasons.append(Reason(kind, weight, text=label))
        else:
            reasons.append(Reason(kind, weight, item_id=label))
    # Nothing speaks for it, yet nothing better was left.
    return reasons or [_NOTHING]
