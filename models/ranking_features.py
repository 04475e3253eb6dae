"""Candidates of a micro-batch -> what a trained ranker knows of each, in columns.

The one place where these are computed: a worker ranks by them, and `prefstream train ranker` learns
from them, asking the same recommender of a shop that is folded act by act. So nothing can be
known in training that a worker does not know, nor in another way.

Most are measured in units of the shopper's ``reach`` (models/evidence.py), so that long histories
and short ones compare. What is not known of an item or of a shopper is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.candidates import CatalogueView, Pools, Together, bounds_of_each
from models.hybrid import HybridRule, text_part
from models.item_index import PADDING, Vectors
from models.item_traits import Traits
from models.shoppers import Shoppers

#: What a feature speaks by: the reasons of an item are told by these.
Group = Literal["text", "together", "fit", "popular", "new_arrival", "taste"]
GROUPS: tuple[Group, ...] = ("text", "together", "fit", "popular", "new_arrival", "taste")

#: The features, in the order of the columns, and the group of each. Those with ``by_users`` are the
#: feature before it times how well known the item is: how far a source is to be trusted depends on
#: it. What a model learnt of items says little of an item that few took; what two items have in
#: common says more of it. The same by the length of the history gained nothing on Amazon Beauty.
FEATURES: dict[str, Group] = {
    "text": "text",  # the text part of the hybrid score
    "text_by_users": "text",
    "newest_text": "text",  # cosine with the newest of what the shopper took
    "nearest_text": "text",  # cosine with the nearest of it
    "together": "together",  # the co-occurrence part of the hybrid score
    "together_by_users": "together",
    "together_root": "together",
    "together_root_by_users": "together",
    "newest_together": "together",  # co-occurrence with the newest
    "followed": "together",  # the share of those who took the history's items that took this too
    "fit": "fit",  # by the user model
    "fit_by_users": "fit",
    "users": "popular",  # log2 of one more than the decayed count of users
    "popularity": "popular",  # the same of what is popular now
    "shelf": "popular",  # 1 for the first of the popular list, falling to 0 behind the last
    "arrival": "new_arrival",  # the same of new arrivals
    "days": "new_arrival",  # log2 of one more than the days in the shop
    "category": "taste",  # the share of the history in the item's category
    "brand": "taste",
    "price_gap": "taste",  # how far from the shopper's usual price, as a logarithm, at most 3
}
#: About where the users of items lie: products are of what is above or below.
_USUAL_LOG_USERS = 3.5
_WIDEST_GAP = 3.0

Column = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What was found for some shoppers, with its centred ``vectors`` (m, dim)."""

    shoppers: Shoppers
    pools: Pools
    vectors: Vectors
    together: Together


def ranking_features(
    found: Candidates, catalogue: CatalogueView, rule: HybridRule, now_ms: int
) -> NDArray[np.float32]:
    """Return the features of the candidates, (m, len(FEATURES))."""
    shoppers, pools = found.shoppers, found.pools
    reach = shoppers.reach[pools.owners]
    traits = catalogue.traits(pools.rows, now_ms)
    of_elements = catalogue.traits(shoppers.rows, now_ms)
    text = text_part(pools, found.vectors, shoppers, rule) / (reach * max(rule.text_share, 1e-3))
    together, followed, newest_together = _together(found, traits, of_elements)
    newest_text, nearest_text = _texts(found)
    speaks = (shoppers.coefficients > 0) & (shoppers.rows != PADDING)
    known = traits.log_users - np.float32(_USUAL_LOG_USERS)
    root = np.sqrt(together.clip(min=0))
    columns: dict[str, Column] = {
        "text": text,
        "text_by_users": text * known,
        "newest_text": newest_text,
        "nearest_text": nearest_text,
        "together": together,
        "together_by_users": together * known,
        "together_root": root,
        "together_root_by_users": root * known,
        "newest_together": newest_together,
        "followed": followed,
        "fit": pools.fit,
        "fit_by_users": pools.fit * known,
        "users": traits.log_users,
        "popularity": traits.log_popularity,
        "shelf": pools.popular,
        "arrival": pools.new_arrival,
        "days": traits.log_days,
        "category": _share(found, speaks, traits.category, of_elements.category),
        "brand": _share(found, speaks, traits.brand, of_elements.brand),
        "price_gap": _price_gap(found, speaks, traits, of_elements),
    }
    return np.stack([columns[name] for name in FEATURES], axis=1)


def _together(
    found: Candidates, traits: Traits, of_elements: Traits
) -> tuple[Column, Column, Column]:
    """Return the sums of co-occurrence, of shares of takers, and what the newest item has, (m,)."""
    shoppers, pools, pairs = found.shoppers, found.pools, found.together
    entries = np.flatnonzero(pools.entries != PADDING)
    at, elements, strengths = (
        pools.entries[entries],
        pairs.elements[entries],
        pairs.strengths[entries],
    )
    # both / users of the element, from both / sqrt(users * users).
    ratio = np.exp2((_users(traits)[at] - _users(of_elements)[elements]) / 2)
    shares = shoppers.coefficients[elements] * np.minimum(strengths * ratio, 1)
    reach, n = shoppers.reach[pools.owners], len(pools.rows)
    is_newest = np.zeros(len(shoppers.rows), bool)
    is_newest[_newest(shoppers)] = True
    of_newest = np.where(is_newest[elements], strengths, 0)
    return (
        pools.together / reach,
        (np.bincount(at, shares, n) / reach).astype(np.float32),
        np.bincount(at, of_newest, n).astype(np.float32),
    )


def _users(traits: Traits) -> Column:
    """Return log2 of the users, at least one."""
    return np.asarray(np.log2(np.maximum(np.exp2(traits.log_users) - 1, 1)), np.float32)


def _newest(shoppers: Shoppers) -> NDArray[np.int64]:
    """Return each shopper's weightiest item, the newest among equals; shoppers without are left
    out."""
    speaks = np.flatnonzero((shoppers.coefficients > 0) & (shoppers.rows != PADDING))
    order = speaks[np.lexsort((-shoppers.coefficients[speaks], shoppers.owners[speaks]))]
    return order[np.unique(shoppers.owners[order], return_index=True)[1]]


def _texts(found: Candidates) -> tuple[Column, Column]:
    """Return the cosines with the newest item and with the nearest of the others, (m,)."""
    shoppers, pools, vectors = found.shoppers, found.pools, found.vectors
    newest, nearest = np.full((2, len(pools.rows)), np.nan, np.float32)
    elements_of = _newest(shoppers)
    first = dict(zip(shoppers.owners[elements_of].tolist(), elements_of.tolist(), strict=True))
    for shopper, (start, end) in enumerate(bounds_of_each(pools.owners, len(shoppers))):
        if shopper in first and end > start:
            elements = shoppers.elements(shopper)
            alike = vectors[start:end] @ shoppers.vectors[elements].T
            # That an item resembles itself is no reason to show it.
            itself = pools.history[elements]
            own = np.flatnonzero(itself != PADDING)
            alike[itself[own] - start, own] = 0
            newest[start:end] = alike[:, first[shopper] - elements.start]
            alike[:, shoppers.coefficients[elements] <= 0] = -1
            nearest[start:end] = alike.max(axis=1)
    return newest, nearest


def _share(
    found: Candidates,
    speaks: NDArray[np.bool_],
    of_items: NDArray[np.int64],
    of_elements: NDArray[np.int64],
) -> Column:
    """Return how much of the history, by its coefficients, is of each candidate's kind, (m,); NaN
    where no kind of the item, or of any of the history, is known."""
    shoppers, pools = found.shoppers, found.pools
    told = np.flatnonzero(speaks & (of_elements != PADDING))
    stride = int(max(of_items.max(initial=0), of_elements.max(initial=0))) + 1
    keys, places = np.unique(
        shoppers.owners[told] * stride + of_elements[told], return_inverse=True
    )
    sums = np.bincount(places, shoppers.coefficients[told], len(keys))
    totals = np.bincount(shoppers.owners[told], shoppers.coefficients[told], len(shoppers))
    wanted = pools.owners * stride + of_items
    at = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
    found_sums = np.where(keys[at] == wanted, sums[at], 0.0) if len(keys) else np.zeros(len(wanted))
    total = totals[pools.owners]
    known = (of_items != PADDING) & (total > 0)
    return np.where(known, found_sums / np.where(known, total, 1), np.nan).astype(np.float32)


def _price_gap(
    found: Candidates, speaks: NDArray[np.bool_], traits: Traits, of_elements: Traits
) -> Column:
    shoppers, owners = found.shoppers, found.pools.owners
    told = np.flatnonzero(speaks & ~np.isnan(of_elements.log_price))
    weights = shoppers.coefficients[told]
    total = np.bincount(shoppers.owners[told], weights, len(shoppers))
    sums = np.bincount(shoppers.owners[told], weights * of_elements.log_price[told], len(shoppers))
    level = np.divide(sums, total, out=np.full(len(shoppers), np.nan), where=total > 0)
    gap = np.abs(traits.log_price - level[owners])
    return np.asarray(np.minimum(gap, _WIDEST_GAP), np.float32)
