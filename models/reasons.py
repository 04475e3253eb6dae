"""Why the picked items were picked: the largest contributions to their scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.candidates import Pool
from models.evidence import Evidence
from models.hybrid import HybridRule
from models.item_index import PADDING, Vectors
from models.profile import Reason
from models.shoppers import Shopper

#: Reasons given per item at most, and the share of the score below which one is not worth saying.
MOST = 3
LEAST_SHARE = 0.05

_TEXT_KIND = {
    "item": "similar_to_item",
    "search": "matches_search",
    "interest": "matches_interest",
}
_EXTRAS = ("long_term_interest", "recent_interest", "popular", "new_arrival")

#: The source of an item, by the kind of its weightiest reason.
SOURCE_OF: dict[str, str] = {
    "similar_to_item": "short_interest",
    "matches_search": "short_interest",
    "recent_interest": "short_interest",
    "matches_interest": "stated_interest",
    "long_term_interest": "long_interest",
    "taken_together": "taken_together",
    "popular": "popular",
    "new_arrival": "new_arrival",
}


def explain(
    picked: Pool, vectors: Vectors, shopper: Shopper, rule: HybridRule
) -> list[tuple[Reason, ...]]:
    """Return the reasons for each item picked, the weightiest first and always one at least.

    ``vectors`` (k, dim) are the centred ones of the items picked.
    """
    parts = np.concatenate(
        [
            _by_text(picked, vectors, shopper, rule),
            _by_pairs(picked, shopper, rule),
            _extras(picked, vectors, shopper, rule),
        ],
        axis=1,
    ).clip(min=0)
    shares = parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12)
    weightiest = np.argsort(-shares, axis=1, kind="stable")[:, :MOST]
    weights = np.take_along_axis(shares, weightiest, axis=1)
    return [
        _reasons(columns, of_them, shopper.evidence)
        for columns, of_them in zip(weightiest.tolist(), weights.tolist(), strict=True)
    ]


def _by_text(
    picked: Pool, vectors: Vectors, shopper: Shopper, rule: HybridRule
) -> NDArray[np.float32]:
    """Return the text contributions of each element, (k, n)."""
    coefficients = shopper.evidence.coefficients
    parts = vectors @ shopper.taste.elements.T
    np.maximum(parts, 0, out=parts, where=coefficients < 0)
    parts *= np.float32(rule.text_share) * coefficients
    own = np.flatnonzero((picked.history != PADDING) & (coefficients > 0))
    parts[picked.history[own], own] = 0
    return np.asarray(parts, np.float32)


def _by_pairs(picked: Pool, shopper: Shopper, rule: HybridRule) -> NDArray[np.float32]:
    """Return the co-occurrence contributions of each element, (k, n)."""
    coefficients, together = shopper.evidence.coefficients, shopper.together
    parts = np.zeros((len(picked.rows), len(coefficients)), np.float32)
    entries = np.flatnonzero(picked.entries != PADDING)
    elements = together.elements[entries]
    strength = coefficients[elements] * together.strengths[entries]
    parts[picked.entries[entries], elements] = np.float32(1 - rule.text_share) * strength
    return parts


def _extras(
    picked: Pool, vectors: Vectors, shopper: Shopper, rule: HybridRule
) -> NDArray[np.float32]:
    """Return the contributions of what is added to the formula, (k, 4), in _EXTRAS' order."""
    long_share, short_share = shopper.taste.interest_shares(shopper.evidence, rule)
    added = [
        long_share * (vectors @ shopper.taste.long),
        short_share * (vectors @ shopper.taste.short),
        rule.popular * picked.popular,
        rule.new_arrival * picked.new_arrival,
    ]
    return np.asarray(shopper.evidence.reach * np.stack(added, axis=1), np.float32)


def _reasons(columns: list[int], shares: list[float], evidence: Evidence) -> tuple[Reason, ...]:
    reasons = tuple(
        _reason(column, share, evidence)
        for column, share in zip(columns, shares, strict=True)
        if share >= LEAST_SHARE
    )
    # Nothing speaks for it, yet nothing better was left.
    return reasons or (Reason("popular", 0.0),)


def _reason(column: int, share: float, evidence: Evidence) -> Reason:
    n = len(evidence)
    if column >= 2 * n:
        return Reason(_EXTRAS[column - 2 * n], share)
    if column >= n:
        return Reason("taken_together", share, item_id=evidence.labels[column - n])
    kind, label = evidence.kinds[column], evidence.labels[column]
    if kind == "item":
        return Reason(_TEXT_KIND[kind], share, item_id=label)
    return Reason(_TEXT_KIND[kind], share, text=label)
