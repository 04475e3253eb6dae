"""ItemIndex on FAISS: flat for small catalogues, IVF for large ones, the GPU's flat where it is.

Figures behind the choices (384 dimensions, one core, faiss-cpu 1.15.1):

- This build never uses its BLAS for fewer than 128,000 queries, elsewhere 20
  (``distance_compute_blas_threshold``), so batches run at a fourth of their speed. We set it.
- More threads than free cores cost 12-28 ms a search instead of 1 ms: OpenMP's threads spin for
  each other. So one thread by default; workers, not threads, use the cores.
- A flat FAISS index moves everything behind a removed vector (389 ms at a million). ``FlatIndex``
  keeps its vectors in a Slab and lets FAISS search that memory, so removing costs microseconds.
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np

from models.item_index import PADDING, ItemIndex, Vectors, check_dim, nothing_found
from models.slab import Rows, Slab

#: Exact below. At 10,000 items and recall@200 .976 five queries take IVF 1.2 ms and the exact scan
#: 3.4; what is found is scored exactly either way, and Recall@10 on Amazon Beauty is the same.
IVF_FROM_ITEMS = 5_000

#: The recall@100 that lists are read for. Above so many items the last hundredth costs as much as
#: all before it, and what is found is scored exactly either way.
_LARGE, _RECALL, _RECALL_WHERE_LARGE = 200_000, 0.98, 0.965
#: A query reads so many lists, or so many times a power of two: steps of a fourth or a fifth.
_PROBES = (4, 5, 6, 7)

_BLAS_FROM_QUERIES = 8
#: For so few, a matrix-vector product and a partition take a fourth of the time of FAISS's scan.
_SCAN_UP_TO_QUERIES = 4
#: FAISS's GPU kernels return at most this many.
_GPU_MAX_K = 2048


def faiss_index(
    dim: int, expected_items: int, *, ivf_from: int = IVF_FROM_ITEMS, threads: int = 1
) -> ItemIndex:
    """Return the index that suits a catalogue of this size on this machine."""
    if faiss.get_num_gpus() > 0:
        return MirroredIndex(dim, gpu_flat(dim), threads=threads)
    if expected_items >= ivf_from:
        return IvfIndex(dim, expected_items, threads=threads)
    return FlatIndex(dim, threads=threads)


class FlatIndex:
    """Exact search by FAISS's kernels over a Slab."""

    def __init__(self, dim: int, *, threads: int = 1) -> None:
        self.dim = dim
        self._threads = threads
        self.slab = Slab(dim)

    def __len__(self) -> int:
        return len(self.slab)

    def upsert(self, rows: Rows, vectors: Vectors) -> None:
        check_dim(self.dim, vectors)
        self.slab.put(rows, vectors)

    def remove(self, rows: Rows) -> None:
        self.slab.drop(rows)

    def vectors(self, rows: Rows) -> Vectors:
        return self.slab.get(rows)[0]

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        check_dim(self.dim, queries)
        scores, rows = nothing_found(len(queries), k)
        n_found = min(k, len(self))
        if n_found and len(queries):
            found, places = _knn(queries, self.slab.vectors, n_found, self._threads)
            scores[:, :n_found], rows[:, :n_found] = found, self.slab.rows[places]
        return scores, rows


class IvfIndex:
    """Approximate search: vectors in lists by k-means, 8 bits a number, some lists per query.

    It trains itself once enough of the ``expected_items`` are there, and is flat and exact until
    then. How many lists a query reads is chosen so that the recall@100 of a sample reaches
    ``target_recall``.
    """

    def __init__(
        self,
        dim: int,
        expected_items: int,
        *,
        target_recall: float | None = None,
        threads: int = 1,
    ) -> None:
        """Without ``target_recall`` it follows from ``expected_items``."""
        self.dim = dim
        self._threads = threads
        self._n_lists = 2 ** round(math.log2(4 * math.sqrt(max(expected_items, 1))))
        # k-means wants some 40 points for each centre.
        self._train_from = min(expected_items, 40 * self._n_lists)
        by_size = _RECALL if expected_items < _LARGE else _RECALL_WHERE_LARGE
        self.target_recall = by_size if target_recall is None else target_recall
        # What is searched until the lists are trained, and the vectors as they were put after.
        self._exact = FlatIndex(dim, threads=threads)
        self._ivf: Any = None

    @property
    def slab(self) -> Slab:
        return self._exact.slab

    @property
    def n_probes(self) -> int:
        """Return how many lists a query reads; 0 while it is exact."""
        return 0 if self._ivf is None else int(self._ivf.nprobe)

    def __len__(self) -> int:
        return len(self._exact)

    def upsert(self, rows: Rows, vectors: Vectors) -> None:
        check_dim(self.dim, vectors)
        if self._ivf is None:
            self._exact.upsert(rows, vectors)
            if len(self) >= self._train_from:
                self._train()
        elif len(rows):
            self._unlist(rows)
            self._exact.upsert(rows, vectors)
            self._list(np.unique(rows))

    def remove(self, rows: Rows) -> None:
        self._unlist(rows)
        self._exact.remove(rows)

    def vectors(self, rows: Rows) -> Vectors:
        return self._exact.vectors(rows)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        if self._ivf is None:
            return self._exact.search(queries, k)
        check_dim(self.dim, queries)
        scores, rows = nothing_found(len(queries), k)
        n_found = min(k, len(self))
        if n_found and len(queries):
            _use(self._threads)
            found, ids = self._ivf.search(_c(queries), n_found)
            rows[:, :n_found] = ids
            scores[:, :n_found] = np.where(ids == PADDING, -np.inf, found)
        return scores, rows

    def _train(self) -> None:
        slab = self._exact.slab
        _use(self._threads)
        self._ivf = _trained(self._n_lists, slab.vectors)
        self._list(slab.rows)
        _tune(self._ivf, slab, self.target_recall, self._threads)

    def _list(self, rows: Rows) -> None:
        _use(self._threads)
        self._ivf.add_with_ids(_c(self.vectors(rows)), np.ascontiguousarray(rows))

    def _unlist(self, rows: Rows) -> None:
        held = np.unique(rows[self._exact.slab.has(rows)])
        if self._ivf is not None and len(held):
            self._ivf.remove_ids(held)


class MirroredIndex:
    """Exact search on a FAISS index that can only grow, such as a GPU's, with a copy on the host.

    What is replaced or removed stays behind as a dead place: it is asked for and dropped, until
    dead places pass a tenth and the device is filled anew from the host.
    """

    def __init__(self, dim: int, device: Any, *, max_k: int = _GPU_MAX_K, threads: int = 1) -> None:
        self.dim = dim
        self._device = device
        self._host = FlatIndex(dim, threads=threads)
        self._max_k = max_k
        self._threads = threads
        self._row_at: Rows = np.empty(0, np.int64)  # by device place, PADDING when dead
        self._n_dead = 0

    @property
    def slab(self) -> Slab:
        return self._host.slab

    def __len__(self) -> int:
        return len(self._host)

    def upsert(self, rows: Rows, vectors: Vectors) -> None:
        self._host.upsert(rows, vectors)
        if len(rows) == 0:
            return
        last = len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]
        self._kill(rows[last])
        self._append(rows[last], vectors[last])
        self._compact()

    def remove(self, rows: Rows) -> None:
        self._host.remove(rows)
        self._kill(rows)
        self._compact()

    def vectors(self, rows: Rows) -> Vectors:
        return self._host.vectors(rows)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        n_asked = min(k + self._n_dead, len(self._row_at))
        if n_asked > self._max_k or not len(self) or not len(queries):
            return self._host.search(queries, k)
        check_dim(self.dim, queries)
        _use(self._threads)
        found, places = self._device.search(_c(queries), n_asked)
        rows_found = np.where(places >= 0, self._row_at[places], PADDING)
        # Stable, so the living keep their order and the dead go to the end.
        living_first = np.argsort(rows_found == PADDING, axis=1, kind="stable")[:, :k]
        scores, rows = nothing_found(len(queries), k)
        n_found = living_first.shape[1]
        rows[:, :n_found] = np.take_along_axis(rows_found, living_first, 1)
        scores[:, :n_found] = np.take_along_axis(found, living_first, 1)
        scores[rows == PADDING] = -np.inf
        return scores, rows

    def _append(self, rows: Rows, vectors: Vectors) -> None:
        self._device.add(_c(vectors))
        self._row_at = np.concatenate([self._row_at, rows])

    def _kill(self, rows: Rows) -> None:
        dead = np.isin(self._row_at, rows[rows >= 0])
        self._row_at[dead] = PADDING
        self._n_dead += int(np.count_nonzero(dead))

    def _compact(self) -> None:
        if self._n_dead > max(64, len(self) // 10):
            self._device.reset()
            self._row_at, self._n_dead = np.empty(0, np.int64), 0
            slab = self._host.slab
            self._append(slab.rows.copy(), slab.vectors)


def gpu_flat(dim: int) -> Any:
    """Return an empty flat fp16 index on the first GPU; needs the ``gpu`` extra."""
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dim, config)


def _knn(queries: Vectors, vectors: Vectors, k: int, threads: int) -> tuple[Vectors, Rows]:
    """Return scores and places in ``vectors`` of the k best, both (n_queries, k); exact."""
    if len(queries) <= _SCAN_UP_TO_QUERIES:
        found = [_scan(query, vectors, k) for query in queries]
        return np.stack([scores for scores, _ in found]), np.stack([places for _, places in found])
    _use(threads)
    scores, places = faiss.knn(_c(queries), _c(vectors), k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, places


def _scan(query: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
    """Return scores and places of the k best for one query (dim,), both (k,), best first."""
    scores = vectors @ query
    places = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
    places = places[np.argsort(-scores[places], kind="stable")]
    return scores[places], places


def _trained(n_lists: int, vectors: Vectors) -> Any:
    """Return an empty IVF index whose lists and 8-bit ranges fit a sample of the vectors."""
    dim = vectors.shape[1]
    coarse = faiss.IndexFlatIP(dim)
    kind = faiss.ScalarQuantizer.QT_8bit
    ivf = faiss.IndexIVFScalarQuantizer(coarse, dim, n_lists, kind, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.spherical = True
    ivf.cp.niter = 8
    ivf.cp.min_points_per_centroid = 1  # else it warns on stderr; callers see to the number
    ivf.cp.max_points_per_centroid = 64
    ivf.train(_c(vectors))
    # Without it, removing looks through every list.
    ivf.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
    return ivf


def _tune(ivf: Any, slab: Slab, target_recall: float, threads: int) -> None:
    """Set nprobe to the smallest of some numbers that reaches the recall@100 on a sample."""
    rng = np.random.default_rng(0)
    # Shoppers' interests are means of items: harder than the items themselves.
    picked = slab.vectors[rng.integers(0, len(slab), (64, 3))]
    queries = picked[:, 0] + rng.uniform(0, 1, (64, 1)).astype(np.float32) * picked[:, 1]
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    k = min(100, len(slab))
    exact = slab.rows[_knn(queries, slab.vectors, k, threads)[1]]
    for power in range(ivf.nlist.bit_length()):
        for number in _PROBES:
            ivf.nprobe = min(number << power, ivf.nlist)
            found = ivf.search(queries, k)[1]
            hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
            if hits >= target_recall * exact.size or ivf.nprobe == ivf.nlist:
                return


def _use(threads: int) -> None:
    # FAISS keeps the first in the calling thread and the second in the process: both are set
    # where they are needed, since a search may come from any thread.
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM_QUERIES


def _c(vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors, np.float32)
