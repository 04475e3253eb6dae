"""Catalogue: everything known of the items, kept up to date while it is asked.

What is known of an item comes in three parts that arrive in any order: what the shop says
(ItemFacts), the encoder's vector, and what shoppers did (NeighbourFacts). An item is recommendable
once the first two are there and it is in stock.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from models import native
from models.candidates import Held
from models.catalogue_state import CatalogueState, NeighbourState
from models.hashed_ids import hash_of
from models.item_index import PADDING, ExactIndex, ItemIndex, Vectors, check_dim, nothing_found
from models.item_traits import ItemTraits, Traits
from models.item_vectors import ItemVectors
from models.items import ItemFacts
from models.learnt_items import LearntItems
from models.neighbours import NeighbourFacts, NeighbourTable, Taken
from models.partial_correlations import MOST_ITEMS, PartialCorrelations
from models.popularity import Order, Popularity
from models.rows import first_allowed, grown, merged
from models.slab import Rows
from models.text_index import TextIndex
from models.trends import Trends

DAY_MS = 86_400_000
#: Items that a new user model is told of at once: some milliseconds.
_LEARNT_AT_ONCE = 512
#: First rows of orders that are kept until one of them changes.
_FIRSTS_KEPT = 64
_NO_ROWS: Rows = np.empty(0, np.int64)


class GivenUp(Exception):
    """A new user model is not wanted any more."""


class Catalogue:
    """The items by ``row``: a number that is never given to another item within a process.

    Every method may be called from any thread. Writers hold the one lock for milliseconds.
    ``inline_below``: catalogues up to this size renew mean and index inside ``put_vectors``;
    larger ones when their owner calls ``rebuild`` (see ``rebuild_due``), in a thread of its own.
    ``cooccurrence_ridge`` above 0, in users, has items told by partial correlations
    (models/partial_correlations.py), which their owner calls ``correlate`` for; 0, by cosines.
    ``texts`` is told what the shop says, by row; its owner calls its ``refresh``. ``learnt`` is
    told of the encoder's vectors.
    """

    def __init__(
        self,
        dim: int,
        index_factory: Callable[[int], ItemIndex] | None = None,
        *,
        cooccurrence_half_life_ms: float = 180 * DAY_MS,
        popularity_half_life_ms: float = 2 * DAY_MS,
        cooccurrence_ridge: float = 0.0,
        inline_below: int = 2_000,
        texts: TextIndex | None = None,
        learnt: LearntItems | None = None,
    ) -> None:
        self.dim = dim
        self._texts = texts
        self._learnt = learnt
        #: Learns of all items beside the one in use, until it takes its place.
        self._coming: LearntItems | None = None
        self._factory = index_factory or (lambda _expected_items: ExactIndex(dim))
        self._half_lives_ms = cooccurrence_half_life_ms, popularity_half_life_ms
        self._ridge = cooccurrence_ridge
        self._inline_below = inline_below
        self._lock = threading.RLock()
        self._row_of: dict[str, int] = {}
        self._ids: list[str] = []
        self._id_hashes = np.zeros(256, np.uint32)  # by row
        self._n_writes = 0
        self._empty()

    def _empty(self) -> None:
        cooccurrence_ms, popularity_ms = self._half_lives_ms
        self._vectors = ItemVectors(self.dim, self._factory, self._lock)
        for learnt in self._learning():
            learnt.clear()
        self._facts: dict[int, ItemFacts] = {}
        self._traits = ItemTraits()
        self._neighbours = NeighbourTable(cooccurrence_ms)
        self._partials = PartialCorrelations.of_none()
        self._n_counted = 0  # since the partial correlations were made
        self._popularity = Popularity(popularity_ms)
        self._trends = Trends(popularity_ms, cooccurrence_ms)
        self._arrivals = Order()
        self._in_stock = np.zeros(256, bool)  # by row: described and in stock
        self._recommendable = np.zeros(256, bool)  # by row: in stock and with a vector
        self._n_recommendable = 0
        # The first k of the orders of a region, of all (None) or of the newest (...), and which.
        self._firsts: dict[
            tuple[int, str | EllipsisType | None], tuple[tuple[weakref.ref[Rows], ...], Rows]
        ] = {}
        if self._texts is not None:
            self._texts.clear()

    # Writing ------------------------------------------------------------------------------------

    def put_item(self, item: ItemFacts) -> None:
        """Set what the shop says of an item."""
        self.put_items([item])

    def put_items(self, items: Sequence[ItemFacts]) -> None:
        """Set what the shop says of some items."""
        with self._lock:
            rows = self._intern(item.item_id for item in items)
            for row, item in zip(rows.tolist(), items, strict=True):
                self._facts[row] = item
                self._in_stock[row] = item.in_stock
                self._arrivals.put(row, item.appeared_ms)
            self._traits.put(rows.tolist(), items)
            if self._texts is not None:
                self._texts.put(rows.tolist(), items)
            self._judge(rows)

    def put_vectors(self, item_ids: Sequence[str], vectors: Vectors) -> None:
        """Add or replace the encoder's unit vectors, shape (n, dim).

        Raises ValueError when the dimension is another or a number is not finite.
        """
        check_dim(self.dim, vectors)
        with self._lock:
            rows = self._intern(item_ids)
        self._put_vectors(rows, vectors)
        with self._lock:
            self._judge(rows)
        self._rebuild_if_small()

    def put_neighbours(self, facts: NeighbourFacts) -> None:
        """Set what shoppers did with an item and with others; these may be unknown as yet."""
        with self._lock:
            names, counts = zip(*facts.neighbours, strict=True) if facts.neighbours else ((), ())
            rows = self._intern([facts.item_id, *names])
            row = int(rows[0])
            taken = Taken(rows[1:].astype(np.int32), np.array(counts, np.float32))
            self._neighbours.put(row, taken, facts.n_users, facts.as_of_ms)
            self._popularity.put(row, facts.popularity, facts.regions, facts.as_of_ms)
            self._trends.put(row, facts.popularity, facts.lasting, facts.as_of_ms)
            self._n_counted += 1
            self._n_writes += 1

    def drop_items(self, item_ids: Sequence[str]) -> None:
        """Forget what the shop says of items: they are not recommended any more."""
        with self._lock:
            rows = self._known(item_ids)
            for row in rows.tolist():
                self._facts.pop(row, None)
                self._arrivals.drop(row)
            self._in_stock[rows] = False
            if self._texts is not None:
                self._texts.drop(rows.tolist())
            self._judge(rows)

    def drop_vectors(self, item_ids: Sequence[str]) -> None:
        """Forget items' vectors."""
        with self._lock:
            rows = self._known(item_ids)
            self._vectors.drop(rows)
            for learnt in self._learning():
                learnt.drop(rows)
            self._judge(rows)
        self._rebuild_if_small()

    def drop_neighbours(self, item_ids: Sequence[str]) -> None:
        """Forget what shoppers did with items; they may still be neighbours of others."""
        with self._lock:
            for row in self._known(item_ids).tolist():
                self._neighbours.drop(row)
                self._partials.drop(row)
                self._popularity.drop(row)
                self._trends.drop(row)
            self._n_writes += 1

    def remove(self, item_ids: Sequence[str]) -> None:
        """Forget everything about items; unknown ones are ignored."""
        with self._lock:
            self.drop_items(item_ids)
            self.drop_vectors(item_ids)
            self.drop_neighbours(item_ids)

    def clear(self) -> None:
        """Forget every item; rows keep their ids."""
        with self._lock:
            self._empty()
            self._grow()
            self._n_writes += 1

    @property
    def rebuild_due(self) -> bool:
        """True when ``rebuild`` would bring the index or the mean closer to what is held."""
        with self._lock:
            return self._vectors.rebuild_due

    def rebuild(self, quick: bool = False) -> bool:
        """Make mean and index anew while reads and writes go on; False if one is running.

        ``quick`` renews the mean and leaves a large catalogue exact until a real rebuild.
        """
        is_mine = self._vectors.rebuild(quick)
        if is_mine and self._learnt is not None:
            self._learnt.rebuild(quick)
        return is_mine

    @property
    def correlate_due(self) -> bool:
        """True when ``correlate`` would find counts that have changed."""
        return self._ridge > 0 and self._n_counted > 0

    def correlate(self) -> None:
        """Compare anew what shoppers did with items, while reads and writes go on; for seconds."""
        with self._lock:
            table, n_counted = self._neighbours, self._n_counted
            counted = table.most_taken(MOST_ITEMS)
        partials = PartialCorrelations.of(counted, self._ridge)
        with self._lock:
            if table is self._neighbours:  # not cleared meanwhile
                self._partials = partials
                self._n_counted -= n_counted
                self._n_writes += 1

    # Another user model -------------------------------------------------------------------------

    def learn(self, learnt: LearntItems, rests_for: float = 0.0) -> None:
        """Tell a new user model's items of all that is held, and of every write from now on;
        ``adopt`` is next. Reads and writes go on, by the model in use.

        It rests so many times as long as it has worked after each step, for others to get on.
        Raises GivenUp when ``give_up`` was called meanwhile.
        """
        self._coming = learnt
        try:
            for block, _ in self._vectors.blocks():
                for first in range(0, len(block), _LEARNT_AT_ONCE):
                    started = time.perf_counter()
                    self._learn_rows(learnt, block[first : first + _LEARNT_AT_ONCE])
                    time.sleep(rests_for * (time.perf_counter() - started))
                    if self._coming is not learnt:
                        raise GivenUp
            learnt.rebuild(quick=False)
        except BaseException:
            self.give_up()
            raise

    def adopt(self, learnt: LearntItems) -> None:
        """Answer from now on by a user model that has learnt of everything."""
        with self._lock:
            self._learnt = learnt
            self._n_writes += 1
        self.give_up()

    def give_up(self) -> None:
        """Tell a user model that was to be adopted of nothing more."""
        self._coming = None

    def _learn_rows(self, learnt: LearntItems, rows: Rows) -> None:
        """Tell of rows as they are, again where they changed meanwhile: the newest must stay."""
        while len(rows):
            with self._lock:
                vectors, known = self._vectors.raw(rows)
            learnt.put(rows[known], self.item_ids(rows[known]), vectors[known])
            learnt.drop(rows[~known])
            with self._lock:
                now, still_known = self._vectors.raw(rows)
            rows = rows[(known != still_known) | (vectors != now).any(axis=1)]

    def _learning(self) -> list[LearntItems]:
        return [learnt for learnt in (self._learnt, self._coming) if learnt is not None]

    # Reading: items -----------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Name the state: which rebuild, and how many batches of writes."""
        return f"{self._vectors.generation}.{self._n_writes}"

    def __len__(self) -> int:
        """Return how many items may be recommended now."""
        return self._n_recommendable

    @property
    def n_vectors(self) -> int:
        """Return how many items have a vector."""
        return len(self._vectors)

    @property
    def n_described(self) -> int:
        """Return of how many items the shop says anything."""
        return len(self._facts)

    @property
    def n_without_vector(self) -> int:
        """Return how many of those have no vector (yet); looks at each."""
        with self._lock:
            rows = np.fromiter(self._facts, np.int64, len(self._facts))
            return int(np.count_nonzero(~self._vectors.has(rows)))

    def row(self, item_id: str) -> int:
        """Return an item's row, PADDING when neither facts nor a vector of it are held."""
        return int(self.rows([item_id])[0])

    def rows(self, item_ids: Sequence[str]) -> Rows:
        """Return each item's row, PADDING where unknown, shape (n,)."""
        with self._lock:
            rows = self._rows_of(item_ids)
            held = self._vectors.has(rows)
            if not held.all():
                for place in np.flatnonzero(~held):
                    if int(rows[place]) not in self._facts:
                        rows[place] = PADDING
            return rows

    def item_id(self, row: int) -> str:
        """Return the item of a row that this catalogue has given out."""
        if row < 0:
            raise IndexError(f"expected a row from 0, got {row}")
        return self._ids[row]

    def item_ids(self, rows: Rows) -> list[str]:
        """Return the items of rows that this catalogue has given out."""
        return [self._ids[row] for row in rows.tolist()]

    def id_hashes(self, rows: Rows) -> NDArray[np.uint32]:
        """Return the hashes by models.hashed_ids of the ids of given-out rows, shape (n,)."""
        return self._id_hashes[rows]

    def facts(self, item_id: str) -> ItemFacts | None:
        """Return what the shop says of an item, None when it says nothing (any more)."""
        return self._facts.get(self._row_of.get(item_id, PADDING))

    def recommendable(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which rows may be recommended now, shape (n,)."""
        with self._lock:
            mask = self._recommendable
            inside = (rows >= 0) & (rows < len(mask))
            return inside & mask[np.where(inside, rows, 0)]

    @contextmanager
    def reading(self) -> Iterator[Held]:
        """Give the catalogue's own columns, which nobody changes meanwhile: to be brief with."""
        with self._lock:
            slab = self._vectors.centred_slab
            n_rows = min(len(self._recommendable), len(slab.places))
            yield Held(self._recommendable[:n_rows], slab.places, slab.vectors)

    # Reading: vectors ---------------------------------------------------------------------------

    def raw_vectors(self, item_ids: Sequence[str]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return the encoder's vectors, (n, dim), zero where unknown; and which are known, (n,)."""
        with self._lock:
            rows = self._rows_of(item_ids)
            return self._vectors.raw(rows)

    def raw_rows(self, item_ids: Sequence[str]) -> Rows:
        """Return the rows of items that have a vector, PADDING for the others, (n,)."""
        with self._lock:
            rows = self._rows_of(item_ids)
            rows[~self._vectors.has(rows)] = PADDING
            return rows

    def raw_sums(self, rows: Rows, starts: Rows, shares: Vectors) -> Vectors:
        """Return the sums of the encoder's vectors of some rows times their ``shares`` (n, 2), by
        where the rows of each begin, ``starts`` (b + 1,): (b, 2, dim)."""
        with self._lock:
            return self._vectors.raw_sums(rows, starts, shares)

    def have_vectors(self, item_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Return which items have a vector, (n,)."""
        with self._lock:
            rows = self._rows_of(item_ids)
            return self._vectors.has(rows)

    def raw_vector(self, item_id: str) -> Vectors | None:
        """Return the encoder's vector of an item, shape (dim,), None where it has none."""
        with self._lock:
            return self._vectors.raw_one(self._row_of.get(item_id, PADDING))

    def centred(self, rows: Rows) -> Vectors:
        """Return centred unit vectors, shape (n, dim); zero where there is no vector."""
        with self._lock:
            return self._vectors.centred(rows)

    def centre(self, vectors: Vectors, weights: NDArray[np.floating]) -> Vectors:
        """Return unit(vector - weight * mean), shape (n, dim): for sums, with sums of weights."""
        with self._lock:
            return self._vectors.centre(vectors, weights)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, both (n_queries, k), of recommendable items, best first.

        ``queries`` are centred unit vectors, shape (n_queries, dim). What is missing is PADDING.
        """
        with self._lock:
            return self._vectors.search(queries, k, self._recommendable, self._n_recommendable)

    # Reading: learnt vectors --------------------------------------------------------------------

    def learnt(self, rows: Rows) -> Vectors:
        """Return learnt unit vectors, shape (n, dim), zero where there is none; dim 0 without a
        user model."""
        if self._learnt is None:
            return np.zeros((len(rows), 0), np.float32)
        return self._learnt.vectors(rows)

    def search_learnt(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows, both (n_queries, k), of recommendable items, best first.

        ``queries`` are a user model's vectors of shoppers. What is missing is PADDING.
        """
        if self._learnt is None:
            return nothing_found(len(queries), k)
        with self._lock:
            return self._learnt.search(queries, k, self._recommendable, self._n_recommendable)

    # Reading: what shoppers did -----------------------------------------------------------------

    def neighbours(self, rows: Rows) -> tuple[Rows, NDArray[np.int64], NDArray[np.float32]]:
        """Return the items taken with those of ``rows``, one after the other: their rows (t,), the
        place in ``rows`` of what each was taken with (t,), and how much that says, from 0 (t,):
        C = both / sqrt(users * users), or the partial correlation in the measure of these.

        They need not be recommendable.
        """
        with self._lock:
            if not self._ridge:
                return self._neighbours.get(rows)
            return self._partials.beside(self._neighbours, rows, self._ridge)

    def traits(self, rows: Rows, now_ms: int) -> Traits:
        """Return what the shop says of given-out rows and how many took them, as of now."""
        with self._lock:
            users = self._neighbours.users(rows, now_ms)
            return self._traits.get(rows, users, self._popularity.counts(rows, now_ms), now_ms)

    def trends(self, rows: Rows, power: float) -> NDArray[np.float32]:
        """Return how often given-out rows are taken of late, in times of the usual, to a power."""
        with self._lock:
            return self._trends.factors(rows, power)

    def popular(self, k: int, region: str | None, now_ms: int) -> Rows:
        """Return min(k, len(self)) rows: the region's most popular, then all's, then the newest."""
        with self._lock:
            orders = self._popularity.best_first(region, now_ms)
            return self._first(region, [*orders, self._arrivals.best_first(now_ms)], k)

    def new_arrivals(self, k: int, now_ms: int) -> Rows:
        """Return min(k, len(self)) rows, newest in the shop first."""
        with self._lock:
            return self._first(..., [self._arrivals.best_first(now_ms)], k)

    def _first(self, of: str | EllipsisType | None, orders: list[Rows], k: int) -> Rows:
        """Return the first k rows of the orders of something that may be recommended: not to be
        changed."""
        # Large orders change once a second or more rarely, and are asked for with every batch.
        refs, rows = self._firsts.get((k, of), ((), _NO_ROWS))
        if len(refs) != len(orders) or any(r() is not o for r, o in zip(refs, orders, strict=True)):
            if len(self._firsts) == _FIRSTS_KEPT:
                self._firsts.clear()
            rows = merged([first_allowed(order, self._recommendable, k) for order in orders], k)
            self._firsts[k, of] = tuple(map(weakref.ref, orders)), rows
        return rows

    # Snapshots ----------------------------------------------------------------------------------

    def state(self) -> CatalogueState:
        """Return all that is held; what is written meanwhile may or may not be in it."""
        with self._lock:
            facts = list(self._facts.values())
            taken = list(self._neighbours.rows())
            lasting = self._trends.lasting([row for row, *_ in taken])
            popular = {row: (n, regions) for row, n, regions, _ in self._popularity.rows()}
        blocks = list(self._vectors.blocks())
        vector_rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in blocks)])
        others = np.concatenate([np.empty(0, np.int32), *(t.rows for _, t, _, _ in taken)])
        counted = np.array([row for row, *_ in taken], np.int64)
        # Ids that nothing mentions any more are left behind.
        used = np.unique(np.concatenate([vector_rows, others, counted]))
        return CatalogueState(
            ids=[self._ids[row] for row in used.tolist()],
            facts=facts,
            vector_places=np.searchsorted(used, vector_rows).astype(np.int32),
            vectors=np.concatenate(
                [np.empty((0, self.dim), np.float16), *(vectors for _, vectors in blocks)]
            ),
            neighbours=NeighbourState(
                places=np.searchsorted(used, counted).astype(np.int32),
                n_users=np.array([n for _, _, n, _ in taken], np.float64),
                as_of_ms=np.array([as_of for *_, as_of in taken], np.int64),
                popularity=np.array([popular[row][0] for row, *_ in taken], np.float64),
                lasting=lasting,
                ends=np.cumsum([len(t.rows) for _, t, _, _ in taken], dtype=np.int64),
                others=np.searchsorted(used, others).astype(np.int32),
                counts=np.concatenate(
                    [np.empty(0, np.float32), *(t.counts for _, t, _, _ in taken)]
                ),
                regions=[popular[row][1] for row, *_ in taken],
            ),
        )

    def restore(self, state: CatalogueState) -> None:
        """Hold what a state holds and nothing else; after a quick rebuild a real one is due.

        Raises ValueError when its vectors have another dimension.
        """
        check_dim(self.dim, state.vectors)
        self.clear()
        with self._lock:
            rows = self._intern(state.ids)
            self.put_items(state.facts)
            self._restore_neighbours(rows, state.neighbours)
        vector_rows = rows[state.vector_places]
        for start in range(0, len(vector_rows), 16_384):
            block = slice(start, start + 16_384)
            self._put_vectors(vector_rows[block], state.vectors[block].astype(np.float32))
        with self._lock:
            self._judge(vector_rows)
        self.rebuild(quick=True)

    def _restore_neighbours(self, rows: Rows, state: NeighbourState) -> None:
        others = rows[state.others].astype(np.int32)
        starts = np.concatenate([[0], state.ends[:-1]]) if len(state.ends) else state.ends
        counted = rows[state.places].tolist()
        for i, (row, start, end) in enumerate(zip(counted, starts, state.ends, strict=True)):
            taken = Taken(others[start:end].copy(), state.counts[start:end].copy())
            as_of_ms = int(state.as_of_ms[i])
            self._neighbours.put(row, taken, float(state.n_users[i]), as_of_ms)
            popularity = float(state.popularity[i])
            self._popularity.put(row, popularity, state.regions[i], as_of_ms)
            self._trends.put(row, popularity, float(state.lasting[i]), as_of_ms)
        self._n_counted += len(counted)

    # Rows ---------------------------------------------------------------------------------------

    def _rows_of(self, item_ids: Sequence[str]) -> Rows:
        """Return the row that each item was given, PADDING for none, (n,)."""
        if native.is_on():
            return native.find_rows(self._row_of, item_ids, PADDING)
        return np.array([self._row_of.get(i, PADDING) for i in item_ids], np.int64)

    def _intern(self, item_ids: Iterable[str]) -> Rows:
        """Return each item's row, a new one where it has none."""
        row_of = self._row_of
        item_ids = list(item_ids)
        rows = list(map(row_of.get, item_ids))
        if None in rows:
            n_before = len(self._ids)
            for place, item_id in enumerate(item_ids):
                if (row := row_of.get(item_id)) is None:
                    row = row_of[item_id] = len(self._ids)
                    self._ids.append(item_id)
                rows[place] = row
            self._grow()
            self._id_hashes[n_before : len(self._ids)] = [
                hash_of(item_id) for item_id in self._ids[n_before:]
            ]
        return np.array(rows, np.int64)

    def _grow(self) -> None:
        self._id_hashes = grown(self._id_hashes, len(self._ids))
        self._in_stock = grown(self._in_stock, len(self._ids))
        self._recommendable = grown(self._recommendable, len(self._ids))

    def _put_vectors(self, rows: Rows, vectors: Vectors) -> None:
        self._vectors.put(rows, vectors)
        for learnt in self._learning():
            # As they are kept, in half precision: a snapshot brings back the same.
            with self._lock:
                kept, _ = self._vectors.raw(rows)
            learnt.put(rows, self.item_ids(rows), kept)

    def _known(self, item_ids: Sequence[str]) -> Rows:
        return np.array([self._row_of[i] for i in item_ids if i in self._row_of], np.int64)

    def _rebuild_if_small(self) -> None:
        if len(self._vectors) < self._inline_below and self.rebuild_due:
            self.rebuild()

    def _judge(self, rows: Rows) -> None:
        """Decide anew which of these rows may be recommended."""
        self._recommendable[rows] = self._in_stock[rows] & self._vectors.has(rows)
        self._n_recommendable = int(np.count_nonzero(self._recommendable))
        self._firsts.clear()
        self._n_writes += 1
