"""ItemVectors: unit vectors by row, their mean, and the index over the centred ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models import native
from models.item_index import PADDING, ExactIndex, ItemIndex, Vectors, check_dim, nothing_found
from models.slab import Rows, Slab

#: Below, the mean is exact: each batch of writes centres everything anew (a millisecond).
_EXACT_BELOW = 1000
#: The mean of a few items says more of them than of what all texts have in common: taken off whole,
#: it would make opposites of two pairs of shoes in a shop of three things. So it is shrunk towards
#: zero as if there were this many more vectors, of zeros.
_MEAN_PRIOR = 20
#: The share of vectors written since the last rebuild that makes the next one due.
_REBUILD_SHARE = 0.25
#: So does a mean that has moved this far (the vectors are of length 1).
_DRIFT = 0.05
#: Vectors handled at once while the lock is held.
_LOCKED_BLOCK = 512
_BUILD_BLOCK = 16_384
#: A search among so few of so many looks at these alone.
_FEW_ALLOWED = 2000


class ItemVectors:
    """Raw fp16 vectors, and an index over them with a frozen mean taken off.

    Centred means: the mean subtracted, the length 1 again. The mean used is frozen with each
    index, so that all answers of one index agree, and renewed by ``rebuild``. Vectors that were
    learnt to be compared as they are have no mean taken off (``centring`` False).
    """

    def __init__(
        self,
        dim: int,
        index_factory: Callable[[int], ItemIndex],
        lock: threading.RLock,
        *,
        centring: bool = True,
    ) -> None:
        self.dim = dim
        self._centring = centring
        self.generation = 0
        self._factory = index_factory
        self._lock = lock
        self._slab = Slab(dim, np.float16)
        self._sum = np.zeros(dim, np.float64)
        self._mean = np.zeros(dim, np.float32)
        self._index = index_factory(0)
        self._n_written = 0
        self._n_built = 0
        # Rows written while a rebuild runs, to be repeated on its index; None while none runs.
        self._missed: set[int] | None = None

    def __len__(self) -> int:
        return len(self._slab)

    def has(self, rows: Rows) -> NDArray[np.bool_]:
        return self._slab.has(rows)

    def raw(self, rows: Rows) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return the encoder's vectors, shape (n, dim), zero where unknown, and which are known."""
        vectors, known = self._slab.get(rows)
        return native.widened(vectors), known

    def raw_sums(self, rows: Rows, starts: Rows, shares: Vectors) -> Vectors:
        """Return the sums of the encoder's vectors of some rows times ``shares``, (n, 2), by where
        the rows of each sum begin, ``starts`` (b + 1,): (b, 2, dim)."""
        if not native.is_on():
            vectors, _ = self.raw(rows)
            bounds = pairwise(starts.tolist())
            return np.stack([shares[begin:end].T @ vectors[begin:end] for begin, end in bounds])
        sums = np.zeros((len(starts) - 1, 2, self.dim), np.float32)
        slab = self._slab
        native.add_up(rows, starts, shares, slab.places, slab.vectors.view(np.uint16), sums)
        return sums

    def raw_one(self, row: int) -> Vectors | None:
        """Return the encoder's vector of a row, shape (dim,), None where unknown."""
        vector = self._slab.get_one(row)
        return None if vector is None else vector.astype(np.float32)

    def centred(self, rows: Rows) -> Vectors:
        """Return centred unit vectors, shape (n, dim); zero where there is no vector."""
        return self._index.vectors(rows)

    @property
    def centred_slab(self) -> Slab:
        """Return the centred unit vectors as they are held, until the next write."""
        return self._index.slab

    def centre(self, vectors: Vectors, weights: NDArray[np.floating]) -> Vectors:
        """Return unit(vector - weight * mean), shape (n, dim); zero where nothing is left."""
        return _unit(vectors - np.outer(weights, self._mean).astype(np.float32))

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """Add or replace; raise ValueError for another dimension or a number that is not finite."""
        check_dim(self.dim, vectors)
        if not np.isfinite(vectors).all():
            raise ValueError("expected finite vectors, got one with NaN or infinity")
        for start in range(0, len(rows), _LOCKED_BLOCK):
            self._put_block(
                rows[start : start + _LOCKED_BLOCK], vectors[start : start + _LOCKED_BLOCK]
            )

    def drop(self, rows: Rows) -> None:
        with self._lock:
            rows = np.unique(rows)
            self._take_off(rows)
            self._slab.drop(rows)
            self._index.remove(rows)
            self._note(rows)

    def search(
        self, queries: Vectors, k: int, allowed: NDArray[np.bool_], n_allowed: int
    ) -> tuple[Vectors, Rows]:
        """Return scores and rows, both (n_queries, k), of rows allowed (a mask by row)."""
        n_wanted = min(k, n_allowed)
        if n_wanted == 0 or len(queries) == 0:
            return nothing_found(len(queries), k)
        n_masked = max(len(self._index) - n_allowed, 0)
        if n_allowed <= _FEW_ALLOWED and n_masked > 10 * n_allowed:
            return self._search_among(np.flatnonzero(allowed), queries, k)
        # As many more as are masked on average, and some; all of those masked when they are few.
        n_asked = n_wanted + min(n_masked, 16 + int(1.5 * n_wanted * n_masked / n_allowed))
        while True:
            scores, rows = self._index.search(queries, n_asked)
            kept_scores, kept_rows, n_kept = _kept_only(scores, rows, allowed, k)
            short = n_kept < n_wanted
            # An approximate index may run dry before: its answers then end in padding.
            if not (rows[short, -1] != PADDING).any() or n_asked >= len(self._index):
                return kept_scores, kept_rows
            n_asked = min(4 * n_asked, len(self._index))

    @property
    def rebuild_due(self) -> bool:
        """True when so much has changed that mean and index should be made anew."""
        if self._missed is not None or self._n_written == 0:
            return False
        if len(self) < _EXACT_BELOW or self._n_written >= _REBUILD_SHARE * self._n_built:
            return True
        return bool(np.linalg.norm(self._current_mean() - self._mean) > _DRIFT)

    def rebuild(self, quick: bool = False) -> bool:
        """Make mean and index anew and swap them in; False when another rebuild is running.

        Searches and writes go on meanwhile: the lock is held for moments only. ``quick`` takes
        the index of an empty catalogue, which has nothing to train; a real rebuild stays due.
        """
        with self._lock:
            if self._missed is not None:
                return False
            self._missed = set()
            mean = self._current_mean()
            rows = np.random.default_rng(0).permutation(self._slab.rows)
        try:
            # In random order: an index may train itself on what comes first.
            index = self._factory(0 if quick else len(rows))
            for start in range(0, len(rows), _BUILD_BLOCK):
                self._copy_to(index, rows[start : start + _BUILD_BLOCK], mean)
            while len(self._missed) > _LOCKED_BLOCK:
                self._repeat_missed(index, mean)
            with self._lock:
                self._repeat_missed(index, mean)
                self._index, self._mean = index, mean
                self._n_written = len(index) if quick else 0
                self._n_built = len(index)
                self.generation += 1
        finally:
            self._missed = None
        return True

    def blocks(self) -> Iterator[tuple[Rows, NDArray[np.float16]]]:
        """Yield every row with its raw fp16 vector, block by block, locking each for a moment."""
        with self._lock:
            rows = self._slab.rows.copy()
        for start in range(0, len(rows), _BUILD_BLOCK):
            with self._lock:
                block = rows[start : start + _BUILD_BLOCK]
                vectors, known = self._slab.get(block)
            yield block[known], vectors[known]

    def _search_among(self, rows: Rows, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        few = ExactIndex(self.dim)
        few.upsert(rows, self.centred(rows))
        return few.search(queries, k)

    def _put_block(self, rows: Rows, vectors: Vectors) -> None:
        with self._lock:
            self._take_off(np.unique(rows))
            self._slab.put(rows, vectors)
            written = np.unique(rows)
            stored = self.raw(written)[0]
            self._sum += stored.sum(axis=0, dtype=np.float64)
            self._index.upsert(written, self.centre(stored, np.ones(len(written), np.float32)))
            self._note(written)

    def _take_off(self, rows: Rows) -> None:
        """Take what is stored of distinct rows off the sum."""
        self._sum -= self.raw(rows)[0].sum(axis=0, dtype=np.float64)

    def _note(self, rows: Rows) -> None:
        self._n_written += len(rows)
        if self._missed is not None:
            self._missed.update(rows.tolist())

    def _current_mean(self) -> NDArray[np.float32]:
        if not self._centring:
            return np.zeros(self.dim, np.float32)
        return (self._sum / (len(self) + _MEAN_PRIOR)).astype(np.float32)

    def _repeat_missed(self, index: ItemIndex, mean: NDArray[np.float32]) -> None:
        with self._lock:
            assert self._missed is not None
            rows = np.array(list(self._missed), np.int64)
            self._missed.clear()
        self._copy_to(index, rows, mean)
        with self._lock:
            index.remove(rows[~self._slab.has(rows)])

    def _copy_to(self, index: ItemIndex, rows: Rows, mean: NDArray[np.float32]) -> None:
        with self._lock:
            vectors, known = self._slab.get(rows)
        index.upsert(rows[known], _unit(vectors[known].astype(np.float32) - mean))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # What is left of a vector equal to the mean is rounding, not a direction.
    return np.where(lengths > 1e-4, vectors / np.maximum(lengths, 1e-4), 0).astype(np.float32)


def _kept_only(
    scores: Vectors, rows: Rows, allowed: NDArray[np.bool_], k: int
) -> tuple[Vectors, Rows, NDArray[np.int64]]:
    """Return the first k of each query's answers that are allowed, (n_queries, k), and how many
    are allowed of all."""
    if native.is_on():
        return native.keep_allowed(scores, rows, allowed.view(np.uint8), k)
    kept = (rows != PADDING) & allowed[rows]
    kept_first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    answer_scores, answer_rows = nothing_found(len(rows), k)
    n = kept_first.shape[1]
    found = np.take_along_axis(kept, kept_first, 1)
    answer_rows[:, :n] = np.where(found, np.take_along_axis(rows, kept_first, 1), PADDING)
    answer_scores[:, :n] = np.where(found, np.take_along_axis(scores, kept_first, 1), -np.inf)
    return answer_scores, answer_rows, kept.sum(axis=1)
