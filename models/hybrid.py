"""The hybrid score of a pool: text similarity and co-occurrence, recent history first.

models/evidence.py has the formula. What is added to it is measured in units of ``reach``, the
largest score the history could give, and settles near-ties only: on Amazon Beauty every larger
weight of the interest sums or of popularity made the ranking worse. Where the history says
nothing (its items have left the catalogue) the interest sums speak in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import Pool
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
    long_interest: float = 0.002
    short_interest: float = 0.002
    popular: float = 0.002
    new_arrival: float = 0.001
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
        long_share, short_share = self.interest_shares(evidence, rule)
        lasting = long_share * self.long + short_share * self.short
        told = rule.text_share * self._told(evidence)
        return np.asarray(told + evidence.reach * lasting, np.float32)

    def interest_shares(self, evidence: Evidence, rule: HybridRule) -> tuple[float, float]:
        """Return the weights of the long and the short interest beside this history."""
        if self._told(evidence).any():
            return rule.long_interest, rule.short_interest
        return rule.text_share / 2, rule.text_share / 2

    def _told(self, evidence: Evidence) -> NDArray[np.float32]:
        return np.asarray(evidence.coefficients.clip(min=0) @ self.elements, np.float32)


def promising(
    pool: Pool, beyond: float, evidence: Evidence, rule: HybridRule, n: int
) -> NDArray[np.int64]:
    """Return the positions that may be among the n best, at most 4 * n of them.

    Of most candidates the text part is not known, but it is at most ``beyond``. Those that would
    not reach the n-th best even so need no vectors, which are what costs time.
    """
    known = _beside_text(pool, evidence, rule)
    is_found = ~np.isnan(pool.text)
    bound = known + np.where(is_found, pool.text, np.float32(beyond))
    sure = is_found.copy()
    sure[pool.history[pool.history != PADDING]] = False  # they lose by it
    if (evidence.coefficients >= 0).all() and np.count_nonzero(sure) >= n:
        scores = bound[sure]
        least = np.partition(scores, len(scores) - n)[len(scores) - n]
        positions = np.flatnonzero(bound >= least)
    else:
        positions = np.arange(len(bound))
    return positions[largest(bound[positions], 4 * n)]


def score(
    pool: Pool,
    vectors: Vectors,
    query: NDArray[np.float32],
    evidence: Evidence,
    taste: Taste,
    rule: HybridRule,
) -> NDArray[np.float32]:
    """Return the scores (m,) of a pool whose centred vectors are ``vectors`` (m, dim).

    What resembles an item that the shopper is against loses by it; what does not gains nothing.
    """
    scores = _beside_text(pool, evidence, rule)
    scores += vectors @ query
    against = np.flatnonzero(evidence.coefficients < 0)
    if len(against):
        alike = (vectors @ taste.elements[against].T).clip(min=0)
        scores += np.float32(rule.text_share) * (alike @ evidence.coefficients[against])
    # That an item resembles itself is no reason to show it; that it was disliked is one not to.
    own = np.flatnonzero((pool.history != PADDING) & (evidence.coefficients > 0))
    at = pool.history[own]
    itself = rule.text_share * evidence.coefficients[own] * (vectors[at] ** 2).sum(axis=1)
    scores[at] -= itself + np.float32(rule.repeat_penalty * evidence.reach)
    return scores


def largest(values: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Return the positions of the n largest values, in no order."""
    if n >= len(values):
        return np.arange(len(values))
    return np.argpartition(-values, n - 1)[:n]


def _beside_text(pool: Pool, evidence: Evidence, rule: HybridRule) -> NDArray[np.float32]:
    lists = rule.popular * pool.popular + rule.new_arrival * pool.new_arrival
    return np.asarray((1 - rule.text_share) * pool.together + evidence.reach * lists, np.float32)
