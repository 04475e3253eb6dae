"""What could be shown to the shoppers of a micro-batch -> what is, by a trained ranker.

It takes the place of the hybrid's order (models/ranking.py), whose score only says which candidates
are looked at. They are found the same way, and kept apart and explained by the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.candidates import CatalogueView, bounds_of_each
from models.diversity import pick_diverse
from models.hybrid import HybridRule, best_of_each, promising, repeats, score
from models.ranking import Picks, Sources, merged, n_best
from models.ranking_features import Candidates, ranking_features
from models.reasons import weightiest
from models.shoppers import Shoppers
from models.trained_ranker import REPEATED, TrainedRanker

#: A ranker chooses among so many of the best by the hybrid score with half of the user model's
#: weight, since rare items that such a model passes over would be gone before the ranker sees them.
#: More gained nothing on Amazon Beauty, and their features are what a ranker's list costs.
_RANKED_PER_PICK, _LEAST_RANKED = 4, 80
_OF_USER_MODEL = 0.5


@dataclass(frozen=True, slots=True)
class Choices:
    """What some shoppers could be shown, m items in all, those of a shopper side by side.

    ``owners`` (m,) are the shoppers' numbers, ``features`` (m, len(FEATURES)); ``is_repeat`` (m,)
    marks what is of the shopper's own history.
    """

    owners: NDArray[np.int64]
    item_ids: list[str]
    features: NDArray[np.float32]
    is_repeat: NDArray[np.bool_]


def choices(
    shoppers: Shoppers,
    sources: Sources,
    catalogue: CatalogueView,
    rule: HybridRule,
    k: int,
    now_ms: int,
) -> Choices:
    """Return what ``rank_as_learnt`` chooses from, to learn from; nothing for shoppers of whom
    nothing is known."""
    found = _candidates(shoppers, sources, catalogue, rule, k)
    pools = found.pools
    is_repeat = np.zeros(len(pools.rows), bool)
    is_repeat[pools.history[repeats(pools, shoppers)]] = True
    kept = np.flatnonzero(~shoppers.is_blank[pools.owners])
    return Choices(
        pools.owners[kept],
        catalogue.item_ids(pools.rows[kept]),
        ranking_features(found, catalogue, rule, now_ms)[kept],
        is_repeat[kept],
    )


def rank_as_learnt(
    shoppers: Shoppers,
    sources: Sources,
    catalogue: CatalogueView,
    rule: HybridRule,
    ranker: TrainedRanker,
    k: int,
    now_ms: int,
) -> Picks:
    """Return up to k picks for each shopper of whom anything is known; their scores are chances."""
    found = _candidates(shoppers, sources, catalogue, rule, k)
    pools = found.pools
    features = ranking_features(found, catalogue, rule, now_ms)
    scores = ranker.rate(features)
    scores[pools.history[repeats(pools, shoppers)]] -= REPEATED
    best = best_of_each(pools.owners, scores, n_best(k))
    best = best[~shoppers.is_blank[pools.owners[best]]]
    bounds = bounds_of_each(pools.owners[best], len(shoppers))
    picked = best[pick_diverse(bounds, scores[best], found.vectors[best], k, ranker.diversity)]
    chosen = pools.take(picked)
    columns, shares = weightiest(
        chosen,
        found.vectors[picked],
        shoppers,
        sources.together,
        rule,
        ranker.shares(features[picked]),
    )
    chances = ranker.chances(scores, pools.owners, len(shoppers))
    starts = np.searchsorted(chosen.owners, np.arange(len(shoppers) + 1)).tolist()
    return Picks(chosen.rows, chances[picked], starts, columns, shares)


def _candidates(
    shoppers: Shoppers, sources: Sources, catalogue: CatalogueView, rule: HybridRule, k: int
) -> Candidates:
    rule = replace(rule, learnt=_OF_USER_MODEL * rule.learnt)
    n = max(_LEAST_RANKED, _RANKED_PER_PICK * k)
    pools = merged(shoppers, sources, catalogue)
    pools = pools.take(promising(pools, sources.found.beyond, shoppers, rule, n))
    vectors = catalogue.centred(pools.rows)
    best = best_of_each(pools.owners, score(pools, vectors, shoppers, rule), n)
    return Candidates(shoppers, pools.take(best), vectors[best], sources.together)
