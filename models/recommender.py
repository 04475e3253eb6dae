"""Recommender: profiles of a micro-batch -> ranked items with reasons.

Candidates of every source are merged, scored by the hybrid, kept apart by MMR and explained. A
shopper of whom nothing is known is shown what is popular (in the region first), then what is new.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.candidates import CatalogueView, Slots, merge
from models.diversity import pick_diverse
from models.hybrid import HybridRule, score
from models.profile import Profile, Ranked, Reason
from models.reasons import explain
from models.shoppers import Retrieval, Shopper
from models.slab import Rows

#: MMR chooses among this many of the best per item to show, and at least this many.
_POOL_PER_PICK = 5
_SMALLEST_POOL = 100


class Recommender:
    """Ranks a catalogue for shoppers; keeps nothing between calls, so threads may share it.

    ``text_share`` is a and ``step_decay`` lambda of the hybrid, ``diversity`` 0 ranks by score
    alone, ``n_candidates`` is per source. ``rule`` takes the place of the first two and sets the
    small terms of models/hybrid.py as well.
    """

    name = "hybrid-1"

    def __init__(
        self,
        catalogue: CatalogueView,
        *,
        text_share: float = 0.3,
        step_decay: float = 0.7,
        diversity: float = 0.15,
        n_candidates: int = 200,
        rule: HybridRule | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._rule = rule or HybridRule(text_share, step_decay)
        self._diversity = diversity
        self._n_candidates = n_candidates
        self._retrieval = Retrieval(catalogue, self._rule, n_candidates)

    def recommend(self, profiles: Sequence[Profile], k: int, now_ms: int) -> list[list[Ranked]]:
        """Return up to k items per profile, best first.

        Never an item of ``profile.exclude`` nor one that is not recommendable now, and k of them
        while the catalogue has as many.
        """
        if not profiles or k < 1:
            return [[] for _ in profiles]
        shoppers = self._retrieval.shoppers(profiles, now_ms)
        slots = Slots(1 + max(_highest_row(shopper) for shopper in shoppers))
        ranked = []
        for shopper in shoppers:
            best = [] if shopper.is_blank else self._rank(shopper, slots, k)
            ranked.append(best + self._popular(shopper.profile, best, k, now_ms))
        return ranked

    def _rank(self, shopper: Shopper, slots: Slots, k: int) -> list[Ranked]:
        exclude = self._catalogue.rows(list(shopper.profile.exclude))
        evidence, together = shopper.evidence, shopper.together
        pool = merge(
            shopper.lists, together, evidence, exclude, self._catalogue, slots, self._n_candidates
        )
        vectors = self._catalogue.centred(pool.rows)
        scored = score(pool, vectors, shopper.query, evidence, shopper.taste, self._rule)
        best = _largest(scored.scores, max(_SMALLEST_POOL, _POOL_PER_PICK * k))
        picked = best[pick_diverse(scored.scores[best], vectors[best], k, self._diversity)]
        why = explain(picked, pool, scored, evidence, shopper.taste, together, self._rule)
        return [
            Ranked(self._catalogue.item_id(row), value, because.source, because.reasons)
            for row, value, because in zip(
                pool.rows[picked].tolist(), scored.scores[picked].tolist(), why, strict=True
            )
        ]

    def _popular(
        self, profile: Profile, before: Sequence[Ranked], k: int, now_ms: int
    ) -> list[Ranked]:
        """Return what fills the places that ``before`` leaves of k."""
        missing = k - len(before)
        if missing <= 0:
            return []
        barred = profile.exclude | {ranked.item_id for ranked in before}
        rows = self._catalogue.popular(missing + len(barred), profile.region, now_ms)
        item_ids = (self._catalogue.item_id(row) for row in rows.tolist())
        shown = [item_id for item_id in item_ids if item_id not in barred][:missing]
        falling = np.linspace(self._rule.popular, 0, len(shown), endpoint=False).tolist()
        why = (Reason("popular", 1.0),)
        return [
            Ranked(item_id, value, "popular", why)
            for item_id, value in zip(shown, falling, strict=True)
        ]


def _highest_row(shopper: Shopper) -> int:
    found: list[Rows] = [shopper.together.rows, *(of_it.rows for of_it in shopper.lists)]
    return max((int(rows.max()) for rows in found if len(rows)), default=-1)


def _largest(scores: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    if n >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(-scores, n - 1)[:n]
