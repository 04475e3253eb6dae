"""What any ItemIndex must do, held against ExactIndex."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from models.faiss_index import FlatIndex, IvfIndex, MirroredIndex, faiss_index, gpu_flat
from models.item_index import PADDING, ExactIndex, ItemIndex

DIM = 64
Make = Callable[[], ItemIndex]

MAKERS: dict[str, Make] = {
    "exact": lambda: ExactIndex(DIM),
    "flat": lambda: FlatIndex(DIM),
    "ivf": lambda: IvfIndex(DIM, 1000),
    "mirrored": lambda: MirroredIndex(DIM, faiss.IndexFlatIP(DIM)),
}
MAKERS_WITH_GPU = [
    *(pytest.param(make, id=name) for name, make in MAKERS.items()),
    pytest.param(lambda: MirroredIndex(DIM, gpu_flat(DIM)), id="gpu", marks=pytest.mark.gpu),
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(params=MAKERS_WITH_GPU)
def index(request: pytest.FixtureRequest) -> ItemIndex:
    return request.param()  # type: ignore[no-any-return]


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng: np.random.Generator, n: int, per_cluster: int = 100) -> NDArray[np.float32]:
    """Unit vectors around random centres, shape (n, DIM)."""
    centres = rng.standard_normal((max(n // per_cluster, 1), DIM))
    noise = 0.5 * rng.standard_normal((n, DIM))
    return unit(centres[rng.integers(0, len(centres), n)] + noise)


def rows_of(*rows: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64)


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
    return hits / exact.size


def test_an_empty_index_finds_nothing(index: ItemIndex, rng: np.random.Generator) -> None:
    scores, rows = index.search(clustered(rng, 3), 5)
    assert len(index) == 0
    assert rows.tolist() == [[PADDING] * 5] * 3
    assert np.isneginf(scores).all()


def test_no_queries_give_no_answers(index: ItemIndex, rng: np.random.Generator) -> None:
    index.upsert(rows_of(1), clustered(rng, 1))
    scores, rows = index.search(np.empty((0, DIM), np.float32), 5)
    assert scores.shape == rows.shape == (0, 5)


def test_what_is_missing_is_padding(index: ItemIndex, rng: np.random.Generator) -> None:
    vectors = clustered(rng, 2)
    index.upsert(rows_of(70, 3), vectors)
    scores, rows = index.search(vectors[:1], 4)
    assert rows[0].tolist() == [70, 3, PADDING, PADDING]
    assert scores[0, 0] == pytest.approx(1, abs=2e-2)
    assert np.isneginf(scores[0, 2:]).all()


def test_the_best_comes_first(index: ItemIndex, rng: np.random.Generator) -> None:
    index.upsert(np.arange(2000), clustered(rng, 2000))
    scores, _ = index.search(clustered(rng, 8), 50)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_removed_item_is_not_found(index: ItemIndex, rng: np.random.Generator) -> None:
    vectors = clustered(rng, 2000)
    index.upsert(np.arange(2000), vectors)
    index.remove(np.arange(0, 2000, 2))
    _, rows = index.search(vectors[:50], 100)
    assert len(index) == 1000
    assert (rows % 2 == 1).all()


def test_removing_the_unknown_changes_nothing(index: ItemIndex, rng: np.random.Generator) -> None:
    index.upsert(rows_of(1, 2), clustered(rng, 2))
    index.remove(rows_of(5, PADDING, 10**6, 1, 1))
    assert len(index) == 1


def test_an_upsert_replaces(index: ItemIndex, rng: np.random.Generator) -> None:
    vectors = clustered(rng, 2000)
    index.upsert(np.arange(2000), vectors)
    index.upsert(rows_of(5), vectors[9:10])
    _, rows = index.search(vectors[9:10], 2)
    assert len(index) == 2000
    assert set(rows[0].tolist()) == {5, 9}


def test_of_a_repeated_row_the_last_stays(index: ItemIndex, rng: np.random.Generator) -> None:
    vectors = unit(rng.standard_normal((3, DIM)))
    index.upsert(rows_of(4, 8, 4), vectors)
    scores, rows = index.search(vectors[2:], 1)
    assert len(index) == 2
    assert rows[0, 0] == 4
    assert scores[0, 0] == pytest.approx(1, abs=2e-2)


def test_a_vector_of_another_dimension_is_refused(index: ItemIndex) -> None:
    with pytest.raises(ValueError, match=r"\(n, 64\), got \(1, 63\)"):
        index.upsert(rows_of(1), np.ones((1, DIM - 1), np.float32))


def test_many_updates_leave_what_a_fresh_index_has(
    index: ItemIndex, rng: np.random.Generator
) -> None:
    held: dict[int, NDArray[np.float32]] = {}
    pool = clustered(rng, 5000)
    for start in range(0, 5000, 200):
        rows = rng.integers(0, 1500, 200)
        vectors = pool[start : start + 200]
        index.upsert(rows, vectors)
        held.update(zip(rows.tolist(), vectors, strict=True))
        gone = rng.integers(0, 1500, 40)
        index.remove(gone)
        for row in gone.tolist():
            held.pop(row, None)
    fresh = ExactIndex(DIM)
    fresh.upsert(np.array(list(held)), np.array(list(held.values())))
    queries = pool[::150]
    assert len(index) == len(fresh)
    assert recall(index.search(queries, 50)[1], fresh.search(queries, 50)[1]) >= 0.95


@pytest.mark.parametrize(
    ("make", "least"),
    [
        pytest.param(lambda: FlatIndex(DIM), 1.0, id="flat"),
        pytest.param(lambda: IvfIndex(DIM, 20_000), 0.95, id="ivf"),
        pytest.param(lambda: MirroredIndex(DIM, faiss.IndexFlatIP(DIM)), 1.0, id="mirrored"),
        pytest.param(
            lambda: MirroredIndex(DIM, gpu_flat(DIM)), 0.99, id="gpu", marks=pytest.mark.gpu
        ),
    ],
)
def test_recall_at_100_against_exact_search(
    make: Make, least: float, rng: np.random.Generator
) -> None:
    vectors = clustered(rng, 20_000)
    queries = unit(vectors[:64] + 0.05 * rng.standard_normal((64, DIM)))
    exact, index = ExactIndex(DIM), make()
    exact.upsert(np.arange(20_000), vectors)
    index.upsert(np.arange(20_000), vectors)
    assert recall(index.search(queries, 100)[1], exact.search(queries, 100)[1]) >= least


def test_ivf_reads_only_some_of_its_lists(rng: np.random.Generator) -> None:
    index = IvfIndex(DIM, 20_000)
    index.upsert(np.arange(20_000), clustered(rng, 20_000))
    assert 0 < index.n_probes < 512 // 4


def test_a_mirrored_index_answers_more_than_its_device_can(rng: np.random.Generator) -> None:
    index = MirroredIndex(DIM, faiss.IndexFlatIP(DIM), max_k=10)
    index.upsert(np.arange(50), clustered(rng, 50))
    assert sorted(index.search(clustered(rng, 1), 50)[1][0].tolist()) == list(range(50))


def test_the_size_of_the_catalogue_chooses_the_index() -> None:
    if faiss.get_num_gpus() > 0:
        pytest.skip("a machine with a GPU always takes the GPU's")
    assert isinstance(faiss_index(DIM, 1000), FlatIndex)
    assert isinstance(faiss_index(DIM, 1_000_000), IvfIndex)


def test_gives_back_the_vectors_as_they_were_put_and_zeros_for_the_rest(
    index: ItemIndex, rng: np.random.Generator
) -> None:
    vectors = clustered(rng, 1200)
    index.upsert(np.arange(1200), vectors)
    index.upsert(rows_of(3), vectors[5:6])
    index.remove(rows_of(4))

    found = index.vectors(rows_of(7, 3, 4, 2000, PADDING))

    np.testing.assert_array_equal(found[:2], vectors[[7, 5]])
    assert not found[2:].any()


def test_large_catalogues_are_searched_for_a_little_less_recall() -> None:
    small, large = IvfIndex(DIM, 100_000), IvfIndex(DIM, 1_000_000)
    assert 0.95 < large.target_recall < small.target_recall
    assert IvfIndex(DIM, 1_000_000, target_recall=0.5).target_recall == 0.5
