"""Ranking: what could be shown to the shoppers of a micro-batch -> what is, in columns.

Candidates of every source are merged, scored by the hybrid, kept apart by MMR and explained. The
steps in numpy are the reference; where the package was built with a C compiler, the same is done
natively (models/_native.pyx), some four times as quick.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import native
from models.candidates import (
    CatalogueView,
    Foreseen,
    Found,
    Pools,
    Shelf,
    Together,
    bar_hashed,
    barred_rows,
    bounds_of_each,
    finished,
    merge,
    put_fit,
)
from models.diversity import pick_diverse
from models.hybrid import HybridRule, best_of_each, promising, score
from models.reasons import weightiest
from models.shoppers import Shoppers
from models.slab import Rows

#: MMR chooses among this many of the best per item to show, and at least this many.
_POOL_PER_PICK = 3
_SMALLEST_POOL = 60


@dataclass(frozen=True, slots=True)
class Sources:
    """What could be shown to some shoppers, by where it comes from."""

    found: Found
    foreseen: Foreseen
    shelf: Shelf
    together: Together


@dataclass(frozen=True, slots=True)
class Picks:
    """What is shown, best first, p in all: the ``rows`` and ``scores`` (p,), and what speaks most
    for each (``columns`` and ``shares`` of reasons.weightiest). A shopper's begin at one of
    ``starts`` (b + 1,)."""

    rows: Rows
    scores: NDArray[np.float32]
    starts: list[int]
    columns: NDArray[np.int64]
    shares: NDArray[np.float32]


def rank(
    shoppers: Shoppers,
    sources: Sources,
    catalogue: CatalogueView,
    rule: HybridRule,
    k: int,
    diversity: float,
) -> Picks:
    """Return up to k picks for each shopper of whom anything is known."""
    ranked = _rank_natively if native.is_on() else _rank_in_numpy
    return ranked(shoppers, sources, catalogue, rule, k, diversity)


def n_best(k: int) -> int:
    """Return among how many candidates MMR chooses k."""
    return max(_SMALLEST_POOL, _POOL_PER_PICK * k)


def _rank_in_numpy(
    shoppers: Shoppers,
    sources: Sources,
    catalogue: CatalogueView,
    rule: HybridRule,
    k: int,
    diversity: float,
) -> Picks:
    n = n_best(k)
    pools = _merge_in_numpy(shoppers, sources, catalogue)
    pools = pools.take(promising(pools, sources.found.beyond, shoppers, rule, n))
    vectors = catalogue.centred(pools.rows)
    scores = score(pools, vectors, shoppers, rule)
    best = best_of_each(pools.owners, scores, n)
    best = best[~shoppers.is_blank[pools.owners[best]]]
    bounds = bounds_of_each(pools.owners[best], len(shoppers))
    picked = best[pick_diverse(bounds, scores[best], vectors[best], k, diversity)]
    chosen = pools.take(picked)
    columns, shares = weightiest(chosen, vectors[picked], shoppers, sources.together, rule)
    starts = np.searchsorted(chosen.owners, np.arange(len(shoppers) + 1)).tolist()
    return Picks(chosen.rows, scores[picked], starts, columns, shares)


def _rank_natively(
    shoppers: Shoppers,
    sources: Sources,
    catalogue: CatalogueView,
    rule: HybridRule,
    k: int,
    diversity: float,
) -> Picks:
    pools, together = _pooled_natively(shoppers, sources, catalogue), sources.together
    # What is barred stays among them: to move all others up would cost more than to pass it over.
    allowed = np.ones(len(pools.rows), np.bool_)
    bar_hashed(allowed, pools, shoppers.profiles, catalogue)
    put_fit(pools, sources.foreseen, catalogue)
    with catalogue.reading() as held:
        positions, scores, starts, columns, shares = native.choose(
            _starts(pools.owners, len(shoppers)),
            pools.rows,
            allowed.view(np.uint8),
            pools.text,
            pools.fit,
            pools.together,
            pools.popular,
            pools.new_arrival,
            pools.entries,
            pools.history,
            sources.found.beyond,
            shoppers.starts,
            shoppers.coefficients,
            shoppers.vectors,
            shoppers.queries,
            shoppers.long,
            shoppers.short,
            shoppers.long_shares,
            shoppers.short_shares,
            shoppers.reach,
            shoppers.is_blank.view(np.uint8),
            together.elements,
            together.strengths,
            held.places,
            held.vectors,
            rule.text_share,
            rule.popular,
            rule.new_arrival,
            rule.learnt,
            rule.repeat_penalty,
            n_best(k),
            k,
            diversity,
        )
    return Picks(pools.rows[positions], scores, starts.tolist(), columns, shares)


def merged(shoppers: Shoppers, sources: Sources, catalogue: CatalogueView) -> Pools:
    """Return the candidates of all sources, each once for a shopper."""
    merge_them = _merge_natively if native.is_on() else _merge_in_numpy
    return merge_them(shoppers, sources, catalogue)


def _merge_in_numpy(shoppers: Shoppers, sources: Sources, catalogue: CatalogueView) -> Pools:
    shelf, together = sources.shelf, sources.together
    return merge(shoppers, sources.found, sources.foreseen, shelf, together, catalogue)


def _merge_natively(shoppers: Shoppers, sources: Sources, catalogue: CatalogueView) -> Pools:
    pools = _pooled_natively(shoppers, sources, catalogue)
    allowed = np.ones(len(pools.rows), np.bool_)
    return finished(pools, allowed, shoppers, sources.foreseen, catalogue)


def _pooled_natively(shoppers: Shoppers, sources: Sources, catalogue: CatalogueView) -> Pools:
    """Return the candidates without a fit, and with what only hashes bar."""
    found, foreseen, together = sources.found, sources.foreseen, sources.together
    n_shoppers, popular = len(shoppers), sources.shelf.popular
    barred, barred_starts = barred_rows(shoppers, catalogue)
    with catalogue.reading() as held:
        owners, rows, text, beside, shown, new, entries, history = native.merge(
            _starts(found.owners, n_shoppers),
            found.rows,
            found.text,
            _starts(foreseen.owners, n_shoppers),
            foreseen.rows,
            np.cumsum([0, *map(len, popular)]),
            np.concatenate(popular),
            sources.shelf.new_arrival,
            shoppers.starts,
            shoppers.rows,
            shoppers.coefficients,
            together.elements,
            together.rows,
            together.strengths,
            barred_starts,
            barred,
            held.recommendable.view(np.uint8),
        )
    return Pools(
        owners=owners,
        rows=rows,
        text=text,
        fit=np.zeros(len(rows), np.float32),
        together=beside,
        popular=shown,
        new_arrival=new,
        entries=entries,
        history=history,
    )


def _starts(owners: NDArray[np.int64], n_owners: int) -> NDArray[np.int64]:
    """Return where what belongs to each owner begins, (n_owners + 1,); ``owners`` never fall."""
    return np.searchsorted(owners, np.arange(n_owners + 1))
