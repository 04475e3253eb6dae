"""The hybrid score of candidates: text similarity and co-occurrence, recent history first.

models/evidence.py has the formula. What is added to it is measured in units of ``reach``, the
largest score the history could give, and settles near-ties only: on Amazon Beauty every larger
weight of the interest sums or of popularity made the ranking worse. Where the history says
nothing (its items have left the catalogue) the interest sums speak in its place.

The part of an item's score that texts speak for is its vector times the shopper's query
``u = a * sum_j max(c_j, 0) h_j + reach * (long_share * long + short_share * short)``. What speaks
against is left out of u, or the opposites of a disliked item would be found.

A user model (models/user_model.py), where there is one, adds how an item fits by what was learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import Pools, bounds_of_each
from models.item_index import PADDING, Vectors
from models.shoppers import Shoppers


@dataclass(frozen=True, slots=True)
class HybridRule:
    """``text_share`` is a and ``step_decay`` lambda of the formula.

    ``long_interest`` and ``short_interest`` weigh the cosine with the interest sums; ``popular``
    and ``new_arrival`` are what the first of those lists gains, the last gaining nothing.
    ``repeat_penalty`` is what an item of the shopper's own history loses; ``learnt`` weighs the
    user model's fit, of which such an item gains nothing. ``trend`` is the power of an item's
    trend (models/trends.py) by which its co-occurrence is multiplied.
    """

    text_share: float
    step_decay: float
    long_interest: float = 0.002
    short_interest: float = 0.002
    popular: float = 0.002
    new_arrival: float = 0.001
    repeat_penalty: float = 0.15
    learnt: float = 0.0
    trend: float = 0.0


def promising(
    pools: Pools, beyond: NDArray[np.float32], shoppers: Shoppers, rule: HybridRule, n: int
) -> NDArray[np.int64]:
    """Return the positions that may be among a shopper's n best, at most 4 * n for each.

    Of most candidates the text part is not known, but it is at most ``beyond`` (b,). Those that
    would not reach the n-th best even so need no vectors, which are what costs time.
    """
    is_found = ~np.isnan(pools.text)
    known = _beside_text(pools, shoppers, rule)
    bound = known + np.where(is_found, pools.text, beyond[pools.owners])
    sure = is_found & ~shoppers.against[pools.owners]
    sure[pools.history[pools.history != PADDING]] = False  # they lose by it
    least = _nth_of_each(pools.owners, np.where(sure, bound, -np.inf), n, len(shoppers))
    positions = np.flatnonzero(bound >= least[pools.owners])
    return positions[best_of_each(pools.owners[positions], bound[positions], 4 * n)]


def score(
    pools: Pools, vectors: Vectors, shoppers: Shoppers, rule: HybridRule
) -> NDArray[np.float32]:
    """Return the scores (m,) of pools whose centred vectors are ``vectors`` (m, dim)."""
    scores = text_part(pools, vectors, shoppers, rule) + _beside_text(pools, shoppers, rule)
    own = repeats(pools, shoppers)
    at = pools.history[own]
    lost = rule.repeat_penalty + rule.learnt * pools.fit[at].clip(min=0)
    scores[at] -= lost * shoppers.reach[shoppers.owners[own]]
    return scores


def text_part(
    pools: Pools, vectors: Vectors, shoppers: Shoppers, rule: HybridRule
) -> NDArray[np.float32]:
    """Return the part of the scores that texts speak for, (m,).

    What resembles an item that the shopper is against loses by it; what does not gains nothing.
    """
    part = np.empty(len(pools.rows), np.float32)
    against = shoppers.against.tolist()
    for shopper, (start, end) in enumerate(bounds_of_each(pools.owners, len(shoppers))):
        part[start:end] = vectors[start:end] @ shoppers.queries[shopper]
        if against[shopper]:
            elements = shoppers.elements(shopper)
            coefficients = shoppers.coefficients[elements].clip(max=0)
            alike = (vectors[start:end] @ shoppers.vectors[elements].T).clip(min=0)
            part[start:end] += np.float32(rule.text_share) * (alike @ coefficients)
    # That an item resembles itself is no reason to show it; that it was disliked is one not to.
    own = repeats(pools, shoppers)
    at = pools.history[own]
    part[at] -= rule.text_share * shoppers.coefficients[own] * (vectors[at] ** 2).sum(axis=1)
    return part


def repeats(pools: Pools, shoppers: Shoppers) -> NDArray[np.int64]:
    """Return the elements that speak for an item which is itself among the pools, (r,)."""
    return np.flatnonzero((pools.history != PADDING) & (shoppers.coefficients > 0))


def best_of_each(
    owners: NDArray[np.int64], values: NDArray[np.float32], n: int
) -> NDArray[np.int64]:
    """Return the positions of the n largest values of each owner, owner by owner, largest first.

    ``owners`` (m,) never fall; equal values stay in their order.
    """
    order = np.lexsort((-values, owners))
    starts = np.searchsorted(owners, owners)
    return order[np.arange(len(order)) - starts < n]


def _nth_of_each(
    owners: NDArray[np.int64], values: NDArray[np.float32], n: int, n_owners: int
) -> NDArray[np.float32]:
    """Return each owner's n-th largest value, -inf where there are fewer; (n_owners,)."""
    starts = np.searchsorted(owners, np.arange(n_owners + 1))
    width = max(int(np.diff(starts).max(initial=0)), n)
    table = np.full((n_owners, width), -np.inf, np.float32)
    table[owners, np.arange(len(owners)) - starts[owners]] = values
    nth: NDArray[np.float32] = np.partition(table, width - n, axis=1)[:, width - n]
    return nth


def _beside_text(pools: Pools, shoppers: Shoppers, rule: HybridRule) -> NDArray[np.float32]:
    lists = np.float32(rule.popular) * pools.popular
    lists += np.float32(rule.new_arrival) * pools.new_arrival
    lists += np.float32(rule.learnt) * pools.fit
    lists *= shoppers.reach[pools.owners]
    lists += np.float32(1 - rule.text_share) * pools.together
    return lists
