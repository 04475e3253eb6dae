"""The hybrid score of a pool: text similarity and co-occurrence, recent history first.

models/evidence.py has the formula. What is added to it is small on purpose, measured in units of
``reach`` (the largest score the history could give), and zero where the profile or the catalogue
has nothing to add: with no interest sums, no popularity and no arrivals the score is the formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import Pool, Source
from models.evidence import Evidence
from models.item_index import PADDING, Vectors


@dataclass(frozen=True, slots=True)
class HybridRule:
    """``text_share`` is a and ``step_decay`` lambda of the formula.

    ``long_interest`` and ``short_interest`` weigh the cosine with the interest sums; ``popular``
    and ``new_arrival`` are what the first of those lists gains, the last gaining nothing.
    ``repeat_penalty`` is what an item of the shopper's own history loses.
    """

    text_share: float
    step_decay: float
    long_interest: float = 0.02
    short_interest: float = 0.02
    popular: float = 0.01
    new_arrival: float = 0.005
    repeat_penalty: float = 0.15


@dataclass(frozen=True, slots=True)
class Taste:
    """One shopper as centred vectors: ``elements`` (n, dim) of the evidence, ``long`` (dim,) and
    ``short`` (dim,) unit or zero."""

    elements: Vectors
    long: Vectors
    short: Vectors

    def query(self, evidence: Evidence, rule: HybridRule) -> NDArray[np.float32]:
        """Return u (dim,): an item's vector times u is the part of its score that texts speak
        for. What speaks against is left out, or the opposites of a disliked item would be found.
        """
        told: NDArray[np.float32] = evidence.coefficients.clip(min=0) @ self.elements
        lasting = rule.long_interest * self.long + rule.short_interest * self.short
        return np.asarray(rule.text_share * told + evidence.reach * lasting, np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """The pool's ``scores`` (m,), its centred ``vectors`` (m, dim), and the parts of the score
    that come from the lists: ``popular`` (m,) and ``new_arrival`` (m,)."""

    scores: NDArray[np.float32]
    vectors: Vectors
    popular: NDArray[np.float32]
    new_arrival: NDArray[np.float32]


def score(
    pool: Pool,
    vectors: Vectors,
    query: NDArray[np.float32],
    evidence: Evidence,
    taste: Taste,
    rule: HybridRule,
) -> Scored:
    """Return the scores of a pool whose centred vectors are ``vectors`` (m, dim).

    What resembles an item that the shopper is against loses by it; what does not gains nothing.
    """
    popular = _bonus(pool, "popular", evidence.reach * rule.popular)
    new_arrival = _bonus(pool, "new_arrival", evidence.reach * rule.new_arrival)
    scores = vectors @ query
    against = np.flatnonzero(evidence.coefficients < 0)
    if len(against):
        alike = (vectors @ taste.elements[against].T).clip(min=0)
        scores += np.float32(rule.text_share) * (alike @ evidence.coefficients[against])
    scores += np.float32(1 - rule.text_share) * pool.together
    scores += popular
    scores += new_arrival
    _correct_own(scores, pool, vectors, evidence, rule)
    return Scored(scores, vectors, popular, new_arrival)


def _bonus(pool: Pool, source: Source, most: float) -> NDArray[np.float32]:
    bonus = np.zeros(len(pool.rows), np.float32)
    for found_by, positions in pool.lists:
        if found_by == source:
            inside = positions != PADDING
            falling = np.linspace(most, 0, len(positions), endpoint=False, dtype=np.float32)
            bonus[positions[inside]] = falling[inside]
    return bonus


def _correct_own(
    scores: NDArray[np.float32],
    pool: Pool,
    vectors: Vectors,
    evidence: Evidence,
    rule: HybridRule,
) -> None:
    # That an item resembles itself is no reason to show it; that it was disliked is one not to.
    own = np.flatnonzero((pool.history != PADDING) & (evidence.coefficients > 0))
    at = pool.history[own]
    itself = rule.text_share * evidence.coefficients[own] * (vectors[at] ** 2).sum(axis=1)
    scores[at] -= itself + np.float32(rule.repeat_penalty * evidence.reach)
