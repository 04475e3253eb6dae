"""Recommender: profiles of a micro-batch -> ranked items with reasons.

What each could be shown is found (retrieval.py), and ranked by the hybrid, and by what a user model
learnt, where there is one (ranking.py), or as a log taught (learnt_ranking.py). A shopper of whom
nothing is known is shown what is popular (in the region first), then what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.candidates import CatalogueView
from models.hybrid import HybridRule
from models.learnt_ranking import Choices, choices, rank_as_learnt
from models.profile import SCORE_DIGITS, Profile, Reason, RecommendedItem
from models.ranking import Sources, rank
from models.reasons import tell
from models.retrieval import Retrieval
from models.shoppers import Shoppers
from models.trained_ranker import TrainedRanker
from models.user_model import UserModel

#: Shoppers ranked at once: enough to share the work, few enough to stay in the cache.
_CHUNK = 32


class Recommender:
    """Ranks a catalogue for shoppers; keeps nothing between calls, so threads may share it.

    ``text_share`` is a, ``step_decay`` lambda and ``trend`` the power of trends in the hybrid,
    ``diversity`` 0 ranks by score alone, ``n_candidates`` are asked of the index per shopper.
    ``rule`` takes the place of the first three and sets the small terms of models/hybrid.py as
    well. ``user_model`` must be the one whose vectors the catalogue holds; it brings its own
    weight. ``ranker`` takes the place of the hybrid's order, and brings its own diversity.
    """

    def __init__(
        self,
        catalogue: CatalogueView,
        *,
        text_share: float = 0.3,
        step_decay: float = 0.7,
        trend: float = 0.0,
        diversity: float = 0.15,
        n_candidates: int = 200,
        rule: HybridRule | None = None,
        user_model: UserModel | None = None,
        ranker: TrainedRanker | None = None,
    ) -> None:
        trained = [part.name for part in (user_model, ranker) if part is not None]
        self.name = "+".join(["hybrid-1", *trained])
        self._catalogue = catalogue
        self._rule = rule or HybridRule(text_share, step_decay, trend=trend)
        if user_model is not None:
            self._rule = replace(self._rule, learnt=user_model.weight)
        self._diversity = diversity
        self._n_candidates = n_candidates
        self._retrieval = Retrieval(catalogue, self._rule, n_candidates, user_model)
        self._ranker = ranker

    def recommend(
        self, profiles: Sequence[Profile], k: int, now_ms: int
    ) -> list[list[RecommendedItem]]:
        """Return up to k items per profile, best first.

        Never an item of ``profile.exclude`` nor one that is not recommendable now, and k of them
        while the catalogue has as many.
        """
        if k < 1:
            return [[] for _ in profiles]
        lists: list[list[RecommendedItem]] = []
        for start in range(0, len(profiles), _CHUNK):
            chunk = profiles[start : start + _CHUNK]
            for profile, best in zip(chunk, self._rank(chunk, k, now_ms), strict=True):
                lists.append(best + self._popular(profile, best, k, now_ms))
        return lists

    def choices(self, profiles: Sequence[Profile], k: int, now_ms: int) -> Choices:
        """Return what a ranker would choose lists of k items from; at most _CHUNK profiles."""
        shoppers, sources = self._found(profiles, now_ms)
        return choices(shoppers, sources, self._catalogue, self._rule, k, now_ms)

    def _found(self, profiles: Sequence[Profile], now_ms: int) -> tuple[Shoppers, Sources]:
        retrieval = self._retrieval
        shoppers = retrieval.shoppers(profiles)
        return shoppers, Sources(
            retrieval.found(shoppers),
            retrieval.foreseen(shoppers),
            retrieval.shelf(shoppers, now_ms),
            retrieval.together(shoppers),
        )

    def _rank(
        self, profiles: Sequence[Profile], k: int, now_ms: int
    ) -> list[list[RecommendedItem]]:
        shoppers, sources = self._found(profiles, now_ms)
        catalogue, rule = self._catalogue, self._rule
        if self._ranker is None:
            picks = rank(shoppers, sources, catalogue, rule, k, self._diversity)
        else:
            picks = rank_as_learnt(shoppers, sources, catalogue, rule, self._ranker, k, now_ms)
        item_ids = self._catalogue.item_ids(picks.rows)
        return tell(
            item_ids, picks.scores, picks.columns, picks.shares, picks.starts, shoppers.evidences
        )

    def _popular(
        self, profile: Profile, before: Sequence[RecommendedItem], k: int, now_ms: int
    ) -> list[RecommendedItem]:
        """Return what fills the places that ``before`` leaves of k."""
        missing = k - len(before)
        if missing <= 0:
            return []
        barred = profile.exclude | {item.item_id for item in before}
        hashed = () if profile.exclude_hashed is None else profile.exclude_hashed
        n_asked, shown, is_all = missing + len(barred), list[str](), False
        while len(shown) < missing and not is_all:
            rows = self._catalogue.popular(n_asked, profile.region, now_ms)
            item_ids = self._catalogue.item_ids(rows)
            shown = [i for i in item_ids if i not in barred and i not in hashed][:missing]
            # How many the hashes bar is not known beforehand.
            is_all, n_asked = len(rows) < n_asked, 4 * n_asked
        falling = np.linspace(self._rule.popular, 0, len(shown), endpoint=False).tolist()
        why = [Reason("popular", 1.0)]
        return [
            RecommendedItem(item_id, rank, round(value, SCORE_DIGITS), "popular", why)
            for rank, (item_id, value) in enumerate(
                zip(shown, falling, strict=True), start=len(before) + 1
            )
        ]
