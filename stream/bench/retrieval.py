"""retrieval: the catalogue's index against FAISS' exact flat one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import faiss
import numpy as np
from numpy.typing import NDArray

from models.bert_encoder import BertEncoder
from models.faiss_index import faiss_index
from models.item_index import ItemIndex
from models.weights import ModelNotFound, resolve
from stream.bench.load import wall_ms
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import OnTurn, Sample, Values, turns
from stream.bench.sizes import Retrieval
from stream.bench.vectors import Vectors, around_centres, clusters, mixed, unit
from stream.demo.shop import build_shop
from stream.settings import Settings

K = 100
#: As many users as share a search in a busy micro-batch.
BATCH = 256
_SEED = 7

Search = Callable[[Vectors], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured on one set of vectors; speeds and times by side."""

    index: str
    recall: float
    qps: dict[str, Sample]
    single_ms: dict[str, Sample]


def measure(size: Retrieval, settings: Settings, on_turn: OnTurn) -> Figure:
    """Search clustered vectors, and title embeddings where the encoder's model is there."""
    rng = np.random.default_rng(_SEED)
    on_turn("building the index of clustered vectors", 0, 1)
    items = around_centres(rng, clusters(rng, size.n), size.dim)
    clustered = _search(items, size, rng, on_turn)
    rows, values = _rows("clustered", clustered), _values("", clustered)
    on_turn("encoding titles", 0, 1)
    titles = _title_vectors(size, settings)
    if titles is not None:
        # Centred, as the catalogue's index holds them.
        titles = unit(titles - titles.mean(axis=0))
        items = np.concatenate([titles, mixed(rng, titles, max(size.n - len(titles), 0))])
        found = _search(items[: size.n], size, rng, on_turn)
        rows, values = rows + _rows("titles", found), values | _values("titles_", found)
    return Figure(
        "retrieval",
        {"n": size.n, "dim": size.dim, "threads": size.threads, **values},
        ("vectors", "index", "recall@100", "queries/s", "±", "times flat", "single p50"),
        rows,
        f"{size.n:,} items, {size.threads} thread(s) and FAISS' BLAS for both; batches of {BATCH}; "
        "queries lie between two items. "
        + (
            "No model, so no titles."
            if titles is None
            else f"Titles: {len(titles):,} encoded in {titles.shape[1]} dimensions, the others "
            "between two of them."
        ),
    )


def _values(prefix: str, found: _Found) -> dict[str, float]:
    return {
        f"{prefix}recall_at_100": found.recall,
        f"{prefix}qps": found.qps["ours"].median,
        f"{prefix}p50_ms": found.single_ms["ours"].median,
    }


def _rows(vectors: str, found: _Found) -> list[tuple[str, ...]]:
    names = {"ours": (found.index, f"{found.recall:.4f}"), "flat": ("FAISS IndexFlatIP", "1")}
    return [
        (
            vectors,
            *names[side],
            *median_and_spread(found.qps[side]),
            number(found.qps[side].over(found.qps["flat"]).median),
            f"{number(found.single_ms[side].median)} ms",
        )
        for side in names
    ]


def _search(items: Vectors, size: Retrieval, rng: np.random.Generator, on_turn: OnTurn) -> _Found:
    ours, flat = faiss_index(items.shape[1], len(items), threads=size.threads), _flat(items)
    ours.upsert(np.arange(len(items)), items)
    sides: dict[str, Search] = {
        "ours": lambda queries: ours.search(queries, K)[1],
        "flat": lambda queries: np.asarray(flat.search(queries, K)[1], np.int64),
    }
    queries = mixed(rng, items, size.queries)
    # Before anything is timed, both answer everything once: this is the recall, too.
    answers = {side: search(queries) for side, search in sides.items()}
    qps, single_ms = Values(), Values()
    for side, _ in turns(list(sides), size.rounds, on_turn):
        # Our index says so itself in every search.
        faiss.omp_set_num_threads(size.threads)
        qps.add(side, _queries_per_s(sides[side], queries))
        single_ms.add(side, _single_ms(sides[side], queries[: size.singles]))
    return _Found(
        _name(ours),
        _recall(answers["ours"], answers["flat"]),
        {side: qps[side] for side in sides},
        {side: single_ms[side] for side in sides},
    )


def _flat(items: Vectors) -> faiss.IndexFlatIP:
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items)
    return flat


def _name(index: ItemIndex) -> str:
    probes = getattr(index, "n_probes", None)
    return type(index).__name__ + (f" ({probes} lists a query)" if probes else "")


def _recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return hits / exact.size


def _queries_per_s(search: Search, queries: Vectors) -> float:
    started = perf_counter()
    for start in range(0, len(queries), BATCH):
        search(queries[start : start + BATCH])
    return len(queries) / (perf_counter() - started)


def _single_ms(search: Search, queries: Vectors) -> float:
    """Return the median time of one query alone."""
    times: list[float] = []
    for row in range(len(queries)):
        started = perf_counter()
        search(queries[row : row + 1])
        times.append(1000 * (perf_counter() - started))
    return float(np.median(times))


def _title_vectors(size: Retrieval, settings: Settings) -> Vectors | None:
    """Return the vectors of a shop's titles, (n, dim of the model); None without the model."""
    try:
        files = resolve(settings.encoder)
    except ModelNotFound:
        return None
    shop = build_shop(_SEED, wall_ms(), size.titles)
    titles = [each.item.title for each in shop.items.values()][: size.titles]
    return BertEncoder(
        files, device=settings.encoder_device, runtime=settings.encoder_runtime
    ).encode(titles)
