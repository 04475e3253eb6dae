"""Recommender: profiles of a micro-batch -> ranked items with reasons.

Candidates of every source are merged, scored by the hybrid, kept apart by MMR and explained. A
shopper of whom nothing is known is shown what is popular (in the region first), then what is new.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.candidates import CatalogueView, Pool, Slots, merge
from models.diversity import pick_diverse
from models.hybrid import HybridRule, largest, promising, score
from models.item_index import Vectors
from models.profile import Profile, Ranked, Reason
from models.reasons import SOURCE_OF, explain
from models.shoppers import Retrieval, Shopper

#: MMR chooses among this many of the best per item to show, and at least this many.
_POOL_PER_PICK = 5
_SMALLEST_POOL = 100
#: Shoppers ranked at once: enough to share the work, few enough to stay in the cache.
_CHUNK = 64


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
        if k < 1:
            return [[] for _ in profiles]
        ranked: list[list[Ranked]] = []
        for start in range(0, len(profiles), _CHUNK):
            shoppers = self._retrieval.shoppers(profiles[start : start + _CHUNK], now_ms)
            for shopper, best in zip(shoppers, self._rank(shoppers, k), strict=True):
                ranked.append(best + self._popular(shopper.profile, best, k, now_ms))
        return ranked

    def _rank(self, shoppers: Sequence[Shopper], k: int) -> list[list[Ranked]]:
        n_best = max(_SMALLEST_POOL, _POOL_PER_PICK * k)
        slots = Slots(1 + max(shopper.highest_row for shopper in shoppers))
        pools = [self._pool(shopper, slots, n_best) for shopper in shoppers]
        # Shoppers share candidates: each vector is fetched and centred once.
        rows, places = np.unique(np.concatenate([pool.rows for pool in pools]), return_inverse=True)
        vectors = self._catalogue.centred(rows)
        ends = np.cumsum([len(pool.rows) for pool in pools])[:-1]
        return [
            [] if shopper.is_blank else self._pick(shopper, pool, vectors[of_pool], n_best, k)
            for shopper, pool, of_pool in zip(shoppers, pools, np.split(places, ends), strict=True)
        ]

    def _pool(self, shopper: Shopper, slots: Slots, n_best: int) -> Pool:
        exclude = self._catalogue.rows(list(shopper.profile.exclude))
        evidence, found = shopper.evidence, shopper.found
        pool = merge(
            found, shopper.shelf, shopper.together, evidence, exclude, self._catalogue, slots
        )
        hashed = shopper.profile.exclude_hashed
        if hashed is not None:
            item_ids = map(self._catalogue.item_id, pool.rows.tolist())
            pool = pool.take(np.flatnonzero([item_id not in hashed for item_id in item_ids]))
        return pool.take(promising(pool, found.beyond, evidence, self._rule, n_best))

    def _pick(
        self, shopper: Shopper, pool: Pool, vectors: Vectors, n_best: int, k: int
    ) -> list[Ranked]:
        scores = score(pool, vectors, shopper.query, shopper.evidence, shopper.taste, self._rule)
        best = largest(scores, n_best)
        picked = best[pick_diverse(scores[best], vectors[best], k, self._diversity)]
        chosen = pool.take(picked)
        why = explain(chosen, vectors[picked], shopper, self._rule)
        return [
            Ranked(self._catalogue.item_id(row), value, SOURCE_OF[reasons[0].kind], reasons)
            for row, value, reasons in zip(
                chosen.rows.tolist(), scores[picked].tolist(), why, strict=True
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
        hashed = () if profile.exclude_hashed is None else profile.exclude_hashed
        n_asked, shown, is_all = missing + len(barred), list[str](), False
        while len(shown) < missing and not is_all:
            rows = self._catalogue.popular(n_asked, profile.region, now_ms)
            item_ids = (self._catalogue.item_id(row) for row in rows.tolist())
            shown = [i for i in item_ids if i not in barred and i not in hashed][:missing]
            # How many the hashes bar is not known beforehand.
            is_all, n_asked = len(rows) < n_asked, 4 * n_asked
        falling = np.linspace(self._rule.popular, 0, len(shown), endpoint=False).tolist()
        why = (Reason("popular", 1.0),)
        return [
            Ranked(item_id, value, "popular", why)
            for item_id, value in zip(shown, falling, strict=True)
        ]
