"""Why the picked items were picked: the largest contributions to their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import Pool, Source, Together
from models.evidence import Evidence
from models.hybrid import HybridRule, Scored, Taste
from models.item_index import PADDING
from models.profile import Reason

#: Reasons given per item at most, and the share of the score below which one is not worth saying.
MOST = 3
LEAST_SHARE = 0.05

_TEXT_KIND = {
    "item": "similar_to_item",
    "search": "matches_search",
    "interest": "matches_interest",
}
_EXTRAS = ("long_term_interest", "recent_interest", "popular", "new_arrival")
#: Said of an item that its list brought in though nothing adds to its score.
FROM_SOURCE: dict[Source, str] = {
    "short_interest": "recent_interest",
    "long_interest": "long_term_interest",
    "stated_interest": "recent_interest",
    "taken_together": "recent_interest",
    "popular": "popular",
    "new_arrival": "new_arrival",
}


@dataclass(frozen=True, slots=True)
class Why:
    """The source and the reasons of one picked item, the weightiest reason first."""

    source: Source
    reasons: tuple[Reason, ...]


def explain(
    picked: NDArray[np.int64],
    pool: Pool,
    scored: Scored,
    evidence: Evidence,
    taste: Taste,
    together: Together,
    rule: HybridRule,
) -> list[Why]:
    """Return why each picked position (k,) of the pool was picked."""
    place = np.full(len(pool.rows) + 1, PADDING, np.int64)  # the last stands for PADDING itself
    place[picked] = np.arange(len(picked))
    by_text = _by_text(picked, place, pool, scored, evidence, taste, rule)
    by_pairs = _by_pairs(place[pool.entries], len(picked), evidence, together, rule)
    extras = _extras(picked, scored, evidence, taste, rule)
    sources = _sources(place, pool, by_text.sum(axis=1) < by_pairs.sum(axis=1))
    parts = np.concatenate([by_text, by_pairs, extras], axis=1).clip(min=0)
    shares = parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12)
    largest = np.argsort(-shares, axis=1, kind="stable")[:, :MOST]
    return [
        Why(source, _reasons(source, columns, values, evidence))
        for source, columns, values in zip(
            sources,
            largest.tolist(),
            np.take_along_axis(shares, largest, axis=1).tolist(),
            strict=True,
        )
    ]


def _by_text(
    picked: NDArray[np.int64],
    place: NDArray[np.int64],
    pool: Pool,
    scored: Scored,
    evidence: Evidence,
    taste: Taste,
    rule: HybridRule,
) -> NDArray[np.float32]:
    """Return the text contributions, (k, n)."""
    parts = scored.vectors[picked] @ taste.elements.T
    np.maximum(parts, 0, out=parts, where=evidence.coefficients < 0)
    parts *= np.float32(rule.text_share) * evidence.coefficients
    itself = place[pool.history]
    elements = np.flatnonzero((itself != PADDING) & (evidence.coefficients > 0))
    parts[itself[elements], elements] = 0
    return np.asarray(parts, np.float32)


def _by_pairs(
    at: NDArray[np.int64], k: int, evidence: Evidence, together: Together, rule: HybridRule
) -> NDArray[np.float32]:
    """Return the co-occurrence contributions, (k, n)."""
    parts = np.zeros((k, len(evidence)), np.float32)
    entries = np.flatnonzero(at != PADDING)
    elements = together.elements[entries]
    strength = evidence.coefficients[elements] * together.strengths[entries]
    parts[at[entries], elements] = np.float32(1 - rule.text_share) * strength
    return parts


def _extras(
    picked: NDArray[np.int64], scored: Scored, evidence: Evidence, taste: Taste, rule: HybridRule
) -> NDArray[np.float32]:
    """Return the contributions of what is added to the formula, (k, 4), in _EXTRAS' order."""
    vectors = scored.vectors[picked]
    lasting = evidence.reach * rule.long_interest * (vectors @ taste.long)
    recent = evidence.reach * rule.short_interest * (vectors @ taste.short)
    return np.stack(
        [lasting, recent, scored.popular[picked], scored.new_arrival[picked]], axis=1
    ).astype(np.float32)


def _sources(place: NDArray[np.int64], pool: Pool, by_pairs: NDArray[np.bool_]) -> list[Source]:
    """Return the list in which each picked item stood highest, unless its pairs say more."""
    best = np.full(len(by_pairs), np.iinfo(np.int64).max)
    n_lists = len(pool.lists)
    for number, (_, positions) in enumerate(pool.lists):
        at = place[positions]
        ranks = np.flatnonzero(at != PADDING)
        best[at[ranks]] = np.minimum(best[at[ranks]], ranks * n_lists + number)
    names = [source for source, _ in pool.lists]
    unlisted = np.iinfo(np.int64).max
    return [
        "taken_together" if pairs or rank == unlisted else names[rank % n_lists]
        for rank, pairs in zip(best.tolist(), by_pairs.tolist(), strict=True)
    ]


def _reasons(
    source: Source, columns: list[int], shares: list[float], evidence: Evidence
) -> tuple[Reason, ...]:
    reasons = tuple(
        _reason(column, share, evidence)
        for column, share in zip(columns, shares, strict=True)
        if share >= LEAST_SHARE
    )
    return reasons or (Reason(FROM_SOURCE[source], 0.0),)


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
