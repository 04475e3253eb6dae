"""What could be recommended: rows of several sources, merged without repeats per shopper."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.item_index import PADDING, Vectors
from models.item_traits import Traits
from models.profile import Profile
from models.shoppers import Shoppers
from models.slab import Rows


class CatalogueView(Protocol):
    """What the recommender reads of a catalogue (models.catalogue.Catalogue)."""

    def __len__(self) -> int: ...
    def rows(self, item_ids: Sequence[str]) -> Rows: ...
    def item_ids(self, rows: Rows) -> list[str]: ...
    def id_hashes(self, rows: Rows) -> NDArray[np.uint32]: ...
    def recommendable(self, rows: Rows) -> NDArray[np.bool_]: ...
    def reading(self) -> AbstractContextManager[Held]: ...
    def centred(self, rows: Rows) -> Vectors: ...
    def centre(self, vectors: Vectors, weights: NDArray[np.float32]) -> Vectors: ...
    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]: ...
    def learnt(self, rows: Rows) -> Vectors: ...
    def search_learnt(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]: ...
    def neighbours(self, rows: Rows) -> tuple[Rows, NDArray[np.int64], NDArray[np.float32]]: ...
    def traits(self, rows: Rows, now_ms: int) -> Traits: ...
    def trends(self, rows: Rows, power: float) -> NDArray[np.float32]: ...
    def popular(self, k: int, region: str | None, now_ms: int) -> Rows: ...
    def new_arrivals(self, k: int, now_ms: int) -> Rows: ...


@dataclass(frozen=True, slots=True)
class Held:
    """A catalogue's own columns, not to be kept: ``recommendable`` by row, and ``places``, which of
    the centred ``vectors`` (n, dim) is the row's, below 0 where it has none."""

    recommendable: NDArray[np.bool_]
    places: NDArray[np.int64]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is shown to anyone: rows of ``popular`` by shopper, those of the region first, and of
    ``new_arrival``; best first."""

    popular: Sequence[Rows]
    new_arrival: Rows


@dataclass(frozen=True, slots=True)
class Together:
    """The neighbours of all elements, one entry per pair: item ``rows`` (t,) was taken beside
    element number ``elements`` (t,), with co-occurrence C ``strengths`` (t,)."""

    rows: Rows
    elements: NDArray[np.int64]
    strengths: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """What the index found: ``rows`` (f,) for the shoppers ``owners`` (f,), and ``text`` (f,), the
    text part of their scores. What it did not find has a text part of ``beyond`` (b,) at most."""

    owners: NDArray[np.int64]
    rows: Rows
    text: NDArray[np.float32]
    beyond: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the user model finds: ``rows`` (f,) for the shoppers ``owners`` (f,), whose learnt
    vectors are ``shoppers`` (b, dim); dim is 0 without a model."""

    owners: NDArray[np.int64]
    rows: Rows
    shoppers: Vectors


@dataclass(frozen=True, slots=True)
class Pools:
    """The candidates of b shoppers side by side, m in all, none twice for the same shopper, all
    recommendable and none excluded.

    ``owners`` (m,), the shopper's number, never falling; ``rows`` (m,); ``text`` (m,), the text
    part of the score, NaN where only its bound is known; ``fit`` (m,), by the user model, 0
    without one; ``together`` (m,), the sum over the history of coefficient times C;
    ``popular`` (m,) and ``new_arrival`` (m,), 1 for the first of those lists falling to 0 behind
    the last. ``entries`` (t,) are the positions of the pairs in Together, ``history`` (e,) those
    of the elements' own items; PADDING for what is not in it.
    """

    owners: NDArray[np.int64]
    rows: Rows
    text: NDArray[np.float32]
    fit: NDArray[np.float32]
    together: NDArray[np.float32]
    popular: NDArray[np.float32]
    new_arrival: NDArray[np.float32]
    entries: NDArray[np.int64]
    history: NDArray[np.int64]

    def take(self, kept: NDArray[np.int64]) -> Pools:
        """Return the pools of the positions kept, in their order."""
        moved = np.full(len(self.rows) + 1, PADDING, np.int64)  # the last stands for PADDING
        moved[kept] = np.arange(len(kept))
        return Pools(
            owners=self.owners[kept],
            rows=self.rows[kept],
            text=self.text[kept],
            fit=self.fit[kept],
            together=self.together[kept],
            popular=self.popular[kept],
            new_arrival=self.new_arrival[kept],
            entries=moved[self.entries],
            history=moved[self.history],
        )


def bounds_of_each(owners: NDArray[np.int64], n_owners: int) -> list[tuple[int, int]]:
    """Return where what belongs to each owner begins and ends; ``owners`` never fall."""
    return list(pairwise(np.searchsorted(owners, np.arange(n_owners + 1)).tolist()))


def merge(
    shoppers: Shoppers,
    found: Found,
    foreseen: Foreseen,
    shelf: Shelf,
    together: Together,
    catalogue: CatalogueView,
) -> Pools:
    """Return the pools: each row of any source once, less the excluded and not recommendable."""
    n_shoppers = len(shoppers)
    n_popular = [len(rows) for rows in shelf.popular]
    owners = np.concatenate(
        [
            found.owners,
            foreseen.owners,
            np.repeat(np.arange(n_shoppers), n_popular),
            np.repeat(np.arange(n_shoppers), len(shelf.new_arrival)),
            shoppers.owners[together.elements],
        ]
    )
    rows = np.concatenate(
        [
            found.rows,
            foreseen.rows,
            *shelf.popular,
            *[shelf.new_arrival] * n_shoppers,
            together.rows,
        ]
    )
    # One number for a row of a shopper: sorting it brings repeats together, shopper by shopper.
    stride = int(rows.max(initial=0)) + 1
    keys, places = np.unique(owners * stride + rows, return_inverse=True)
    n = len(keys)
    n_found, n_foreseen, n_shelf = len(found.rows), len(foreseen.rows), sum(n_popular)
    n_new = n_shoppers * len(shelf.new_arrival)
    at_found, _, at_popular, at_new, at_entries = np.split(
        places, np.cumsum([n_found, n_foreseen, n_shelf, n_new])
    )
    distinct = keys % stride
    text = np.full(n, np.nan, np.float32)
    text[at_found] = found.text
    weights = shoppers.coefficients[together.elements] * together.strengths
    pools = Pools(
        owners=keys // stride,
        rows=distinct,
        text=text,
        fit=np.zeros(n, np.float32),
        together=np.bincount(at_entries, weights, n).astype(np.float32),
        popular=_put(at_popular, [_falling(length) for length in n_popular], n),
        new_arrival=_put(at_new, [_falling(len(shelf.new_arrival))] * n_shoppers, n),
        entries=at_entries,
        history=_positions(keys, shoppers.owners, shoppers.rows, stride),
    )
    allowed = catalogue.recommendable(distinct)
    barred, starts = barred_rows(shoppers, catalogue)
    of_barred = np.repeat(np.arange(n_shoppers), np.diff(starts))
    excluded = _positions(keys, of_barred, barred, stride)
    allowed[excluded[excluded != PADDING]] = False
    return finished(pools, allowed, shoppers, foreseen, catalogue)


def barred_rows(shoppers: Shoppers, catalogue: CatalogueView) -> tuple[Rows, NDArray[np.int64]]:
    """Return the rows that shoppers may not be shown, one shopper's behind another's, and where
    those of each begin, (b + 1,)."""
    barred = [profile.exclude for profile in shoppers.profiles]
    starts = np.cumsum([0, *map(len, barred)])
    return catalogue.rows(list(chain.from_iterable(barred))), starts


def finished(
    pools: Pools,
    allowed: NDArray[np.bool_],
    shoppers: Shoppers,
    foreseen: Foreseen,
    catalogue: CatalogueView,
) -> Pools:
    """Return the pools less what is not allowed or barred by hashes, with the user model's fit."""
    bar_hashed(allowed, pools, shoppers.profiles, catalogue)
    if not allowed.all():
        pools = pools.take(np.flatnonzero(allowed))
    put_fit(pools, foreseen, catalogue)
    return pools


def put_fit(pools: Pools, foreseen: Foreseen, catalogue: CatalogueView) -> None:
    """Fill in the user model's fit, where there is one."""
    if foreseen.shoppers.shape[1]:
        # Of all: the vectors are short, and the fit of most would be guessed too high by far.
        learnt = catalogue.learnt(pools.rows)
        np.einsum("md,md->m", learnt, foreseen.shoppers[pools.owners], out=pools.fit)


def bar_hashed(
    allowed: NDArray[np.bool_],
    pools: Pools,
    profiles: Sequence[Profile],
    catalogue: CatalogueView,
) -> None:
    """Disallow what only hashes exclude; the items of a shopper who has none are not looked at."""
    if all(profile.exclude_hashed is None for profile in profiles):
        return
    bounds = bounds_of_each(pools.owners, len(profiles))
    for profile, (start, end) in zip(profiles, bounds, strict=True):
        hashed = profile.exclude_hashed
        if hashed is not None:
            left = start + np.flatnonzero(allowed[start:end])
            left = left[hashed.may_hold(catalogue.id_hashes(pools.rows[left]))]
            item_ids = catalogue.item_ids(pools.rows[left])
            allowed[left] = [item_id not in hashed for item_id in item_ids]


def _positions(
    keys: NDArray[np.int64], owners: NDArray[np.int64], rows: Rows, stride: int
) -> NDArray[np.int64]:
    """Return where the shoppers' rows lie among the keys, PADDING for those that do not."""
    inside = (rows >= 0) & (rows < stride)
    wanted = np.where(inside, owners * stride + rows, PADDING)
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    is_there = keys[at] == wanted if len(keys) else np.zeros(len(rows), bool)
    return np.where(is_there, at, PADDING)


def _falling(n: int) -> NDArray[np.float32]:
    return np.linspace(1, 0, n, endpoint=False, dtype=np.float32)


def _put(
    places: NDArray[np.int64], values: Sequence[NDArray[np.float32]], n: int
) -> NDArray[np.float32]:
    column = np.zeros(n, np.float32)
    column[places] = np.concatenate(values)
    return column
