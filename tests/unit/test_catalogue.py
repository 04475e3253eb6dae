"""The catalogue: what may be recommended, and how near, taken together, popular or new it is."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.catalogue import Catalogue
from models.faiss_index import FlatIndex, IvfIndex
from models.item_index import PADDING, ExactIndex, ItemIndex
from models.item_vectors import _MEAN_PRIOR as PRIOR
from models.items import ItemFacts
from models.neighbours import NeighbourFacts
from models.partial_correlations import Counted, PartialCorrelations

NOW_MS = 1_760_000_000_000
DAY_MS = 86_400_000
DIM = 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def units(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((n, DIM)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def facts(item_id: str, **fields: Any) -> ItemFacts:
    return ItemFacts(item_id, f"title of {item_id}", **{"updated_ms": NOW_MS, **fields})


def counts(item_id: str, **fields: Any) -> NeighbourFacts:
    return NeighbourFacts(item_id, **{"as_of_ms": NOW_MS, "n_users": 4.0, **fields})


def ids(n: int) -> list[str]:
    return [f"i{i}" for i in range(n)]


def shop(rng: np.random.Generator, n: int, **options: Any) -> Catalogue:
    """A catalogue of n items in stock, each a millisecond newer than the one before."""
    catalogue = Catalogue(DIM, **options)
    catalogue.put_items([facts(item, updated_ms=NOW_MS + i) for i, item in enumerate(ids(n))])
    catalogue.put_vectors(ids(n), units(rng, n))
    return catalogue


def named(catalogue: Catalogue, rows: NDArray[np.int64]) -> list[str]:
    return [catalogue.item_id(row) for row in rows.tolist()]


def found(catalogue: Catalogue, k: int = 100) -> set[str]:
    """Everything that a search, the popular and the new can return."""
    queries = np.concatenate([np.eye(DIM), -np.eye(DIM)]).astype(np.float32)
    rows = catalogue.search(queries, k)[1]
    more = [catalogue.popular(k, "north", NOW_MS), catalogue.new_arrivals(k, NOW_MS)]
    every = np.concatenate([rows[rows != PADDING], *more])
    return set(named(catalogue, every))


def test_an_item_is_recommended_once_facts_and_vector_are_there(
    rng: np.random.Generator,
) -> None:
    catalogue = Catalogue(DIM)
    catalogue.put_vectors(["a"], units(rng, 1))
    assert (len(catalogue), found(catalogue)) == (0, set())
    catalogue.put_item(facts("a"))
    assert (len(catalogue), found(catalogue)) == (1, {"a"})


@pytest.mark.parametrize("take_away", ["remove", "drop_items", "drop_vectors"])
def test_what_is_removed_is_never_returned(rng: np.random.Generator, take_away: str) -> None:
    catalogue = shop(rng, 20)
    catalogue.put_neighbours(counts("i3", popularity=9.0, regions={"north": 9.0}))
    getattr(catalogue, take_away)(["i3", "never heard of"])
    assert found(catalogue) == set(ids(20)) - {"i3"}


def test_what_is_out_of_stock_is_never_returned_and_comes_back(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 20)
    catalogue.put_neighbours(counts("i3", popularity=9.0, regions={"north": 9.0}))
    row = catalogue.row("i3")
    before = catalogue.centred(catalogue.rows(ids(20)))
    catalogue.put_item(facts("i3", in_stock=False))
    assert found(catalogue) == set(ids(20)) - {"i3"}
    catalogue.put_item(facts("i3", updated_ms=NOW_MS + 3))
    assert found(catalogue) == set(ids(20))
    assert catalogue.row("i3") == row
    np.testing.assert_array_equal(catalogue.centred(catalogue.rows(ids(20))), before)


def test_a_change_of_facts_leaves_the_index_alone(rng: np.random.Generator) -> None:
    class Watched(ExactIndex):
        n_upserts = 0

        def upsert(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
            Watched.n_upserts += 1
            super().upsert(rows, vectors)

    catalogue = shop(rng, 20, index_factory=lambda _: Watched(DIM))
    before = Watched.n_upserts
    catalogue.put_items([facts(item, in_stock=False) for item in ids(20)])
    assert Watched.n_upserts == before
    assert len(catalogue) == 0


def test_a_removed_item_that_returns_is_recommended_again(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 5)
    catalogue.remove(["i3"])
    assert catalogue.row("i3") == PADDING
    catalogue.put_item(facts("i3"))
    catalogue.put_vectors(["i3"], units(rng, 1))
    assert "i3" in found(catalogue)


def test_unknown_items_have_no_row_and_no_vector(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 2)
    catalogue.put_neighbours(counts("i0", neighbours=[("not yet here", 2.0)]))
    assert catalogue.rows(["i1", "not yet here", "x"]).tolist() == [1, PADDING, PADDING]
    vectors, known = catalogue.raw_vectors(["i1", "x"])
    assert known.tolist() == [True, False]
    assert not vectors[1].any()
    assert catalogue.recommendable(np.array([1, PADDING, 10**6])).tolist() == [True, False, False]
    assert not catalogue.centred(np.array([PADDING])).any()


def test_vectors_are_centred_by_the_mean_of_the_catalogue(rng: np.random.Generator) -> None:
    raw = units(rng, 50)
    catalogue = Catalogue(DIM)
    catalogue.put_vectors(ids(50)[:20], raw[:20])
    catalogue.put_vectors(ids(50)[20:], raw[20:])
    wanted = raw - raw.sum(axis=0) / (50 + PRIOR)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(catalogue.centred(np.arange(50)), wanted, atol=2e-3)


def test_in_a_shop_of_three_things_two_pairs_of_shoes_are_still_alike(
    rng: np.random.Generator,
) -> None:
    shoe, cup = units(rng, 2)
    other_shoe = shoe + 0.5 * units(rng, 1)[0]
    catalogue = Catalogue(DIM)
    catalogue.put_vectors(ids(3), np.stack([shoe, other_shoe / np.linalg.norm(other_shoe), cup]))
    first, second, _ = catalogue.centred(np.arange(3))
    assert first @ second > 0.5


def test_the_mean_follows_replaced_and_dropped_vectors(rng: np.random.Generator) -> None:
    catalogue, raw = Catalogue(DIM), units(rng, 60)
    catalogue.put_vectors(ids(30), raw[:30])
    catalogue.put_vectors(ids(30), raw[30:])
    catalogue.put_vectors(["i3", "i3"], raw[[1, 33]])
    catalogue.drop_vectors(["i0", "i0"])
    catalogue.rebuild()
    fresh = Catalogue(DIM)
    fresh.put_vectors(ids(30)[1:], raw[31:])
    np.testing.assert_allclose(
        catalogue.centred(catalogue.rows(ids(30)[1:])),
        fresh.centred(fresh.rows(ids(30)[1:])),
        atol=1e-5,
    )


def test_a_sum_is_centred_by_its_weight(rng: np.random.Generator) -> None:
    catalogue, raw = Catalogue(DIM), units(rng, 40)
    catalogue.put_vectors(ids(40), raw)
    summed = (3 * raw[:1]).astype(np.float32)
    np.testing.assert_allclose(
        catalogue.centre(summed, np.array([3.0], np.float32)),
        catalogue.centred(np.array([0])),
        atol=2e-3,
    )


def test_search_finds_what_is_nearest_among_the_recommendable(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 300)
    gone = {f"i{i}" for i in range(0, 300, 2)}
    catalogue.put_items([facts(item, in_stock=False) for item in gone])
    rows = catalogue.rows(ids(300))
    centred = catalogue.centred(rows)
    scores = centred[:5] @ centred.T
    scores[:, ::2] = -np.inf
    wanted = np.argsort(-scores, axis=1)[:, :10]
    found_scores, found_rows = catalogue.search(centred[:5], 10)
    np.testing.assert_array_equal(found_rows, rows[wanted])
    np.testing.assert_allclose(found_scores, np.take_along_axis(scores, wanted, 1), atol=1e-5)


@pytest.mark.parametrize("n_left", [0, 1, 7])
def test_search_finds_the_few_that_are_left(rng: np.random.Generator, n_left: int) -> None:
    catalogue = shop(rng, 300)
    catalogue.put_items([facts(item, in_stock=False) for item in ids(300)[n_left:]])
    _, rows = catalogue.search(catalogue.centred(np.array([200])), 20)
    assert set(named(catalogue, rows[rows != PADDING])) == set(ids(n_left))
    assert rows.shape == (1, 20)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros((1, DIM + 1), np.float32), r"expected vectors of shape \(n, 16\), got \(1, 17\)"),
        (np.full((1, DIM), np.nan, np.float32), "finite"),
    ],
    ids=["dimension", "nan"],
)
def test_a_bad_vector_is_refused_and_changes_nothing(
    rng: np.random.Generator, bad: NDArray[np.float32], why: str
) -> None:
    catalogue = shop(rng, 3)
    before = catalogue.raw_vectors(ids(3))[0]
    with pytest.raises(ValueError, match=why):
        catalogue.put_vectors(["i1"], bad)
    np.testing.assert_array_equal(catalogue.raw_vectors(ids(3))[0], before)


def test_neighbours_are_weighed_by_how_many_took_each(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 3)
    catalogue.put_neighbours(counts("i0", n_users=4.0, neighbours=[("i1", 2.0), ("i2", 1.0)]))
    catalogue.put_neighbours(counts("i1", n_users=9.0))
    rows, places, strengths = catalogue.neighbours(np.array([0]))
    assert places.tolist() == [0]
    # Of i2 nobody has said yet how many took it.
    assert named(catalogue, rows) == ["i1"]
    assert strengths.tolist() == pytest.approx([2 / 6])
    catalogue.put_neighbours(counts("i2", n_users=1.0))
    assert catalogue.neighbours(np.array([0]))[2].tolist() == pytest.approx([2 / 6, 1 / 2])


def test_counts_of_different_times_are_compared_at_one(rng: np.random.Generator) -> None:
    catalogue = Catalogue(DIM, cooccurrence_half_life_ms=10 * DAY_MS)
    catalogue.put_neighbours(counts("i0", n_users=4.0, neighbours=[("i1", 2.0)]))
    # 36 users ten days ago are 18 now.
    catalogue.put_neighbours(counts("i1", n_users=36.0, as_of_ms=NOW_MS - 10 * DAY_MS))
    assert catalogue.neighbours(np.array([0]))[2].tolist() == pytest.approx([2 / (4 * 18) ** 0.5])


def test_with_a_ridge_pairs_count_by_what_no_third_item_explains(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 4, cooccurrence_ridge=1.0)
    assert not catalogue.correlate_due
    # Of 20 users each, i0 and i2 have in common only who took i1.
    catalogue.put_neighbours(counts("i0", n_users=20.0, neighbours=[("i1", 14.0), ("i2", 10.0)]))
    catalogue.put_neighbours(counts("i1", n_users=20.0, neighbours=[("i0", 14.0), ("i2", 14.0)]))
    catalogue.put_neighbours(counts("i2", n_users=20.0, neighbours=[("i1", 14.0), ("i0", 10.0)]))
    assert catalogue.correlate_due
    # Until they are compared: cosines, made smaller by the ridge.
    assert catalogue.neighbours(np.array([0]))[2].tolist() == pytest.approx([14 / 21, 10 / 21])
    catalogue.correlate()
    assert not catalogue.correlate_due
    rows, places, strengths = catalogue.neighbours(np.array([3, 0]))
    assert (named(catalogue, rows), places.tolist()) == (["i1", "i2"], [1, 1])
    assert strengths[0] > 3 * strengths[1]
    catalogue.drop_neighbours(["i0"])
    assert len(catalogue.neighbours(np.array([0]))[0]) == 0
    restored = Catalogue(DIM, cooccurrence_ridge=1.0)
    restored.restore(catalogue.state())
    assert restored.correlate_due
    catalogue.clear()
    catalogue.correlate()
    assert len(catalogue.neighbours(np.array([1]))[0]) == 0


def test_what_is_compared_while_the_catalogue_is_cleared_is_let_go(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = shop(rng, 2, cooccurrence_ridge=1.0)
    catalogue.put_neighbours(counts("i0", neighbours=[("i1", 2.0)]))
    catalogue.put_neighbours(counts("i1", neighbours=[("i0", 2.0)]))
    compare = PartialCorrelations.of

    def cleared_meanwhile(counted: Counted, ridge: float) -> PartialCorrelations:
        catalogue.clear()
        return compare(counted, ridge)

    monkeypatch.setattr(PartialCorrelations, "of", cleared_meanwhile)
    catalogue.correlate()
    assert len(catalogue.neighbours(np.array([0]))[0]) == 0


def test_a_trend_is_known_once_the_lasting_count_is(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 3)
    catalogue.put_neighbours(counts("i0", popularity=30.0, lasting=1000.0))
    catalogue.put_neighbours(counts("i1", popularity=10.0, lasting=1000.0))
    catalogue.put_neighbours(counts("i2", popularity=10.0))
    rising, usual, unknown = catalogue.trends(np.arange(3), 1.0)
    assert rising > unknown == 1 > usual
    catalogue.drop_neighbours(["i0"])
    assert catalogue.trends(np.arange(2), 1.0).tolist() == [1, 1]


def test_neighbours_of_several_rows_come_one_after_the_other(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 4)
    catalogue.put_neighbours(counts("i0", n_users=4.0, neighbours=[("i1", 2.0), ("i2", 1.0)]))
    catalogue.put_neighbours(counts("i1", n_users=9.0, neighbours=[("i0", 2.0)]))
    catalogue.put_neighbours(counts("i2", n_users=1.0))
    rows, places, strengths = catalogue.neighbours(np.array([1, PADDING, 0, 3, 0]))
    assert named(catalogue, rows) == ["i0", "i1", "i2", "i1", "i2"]
    assert places.tolist() == [0, 2, 2, 4, 4]
    assert strengths.tolist() == pytest.approx([2 / 6, 2 / 6, 1 / 2, 2 / 6, 1 / 2])
    assert (rows.dtype, places.dtype, strengths.dtype) == (np.int64, np.int64, np.float32)


def test_an_item_nobody_took_has_no_neighbours(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 3)
    for row in (0, PADDING, 999):
        assert catalogue.neighbours(np.array([row]))[0].tolist() == []


def test_popular_is_the_region_then_all_then_the_newest(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 6)
    catalogue.put_neighbours(counts("i0", popularity=9.0, regions={"south": 9.0}))
    catalogue.put_neighbours(counts("i1", popularity=5.0, regions={"north": 5.0}))
    catalogue.put_neighbours(counts("i2", popularity=7.0, regions={"north": 1.0}))
    popular = catalogue.popular(10, "north", NOW_MS)
    assert named(catalogue, popular) == ["i1", "i2", "i0", "i5", "i4", "i3"]
    assert named(catalogue, catalogue.popular(3, None, NOW_MS)) == ["i0", "i2", "i1"]
    assert named(catalogue, catalogue.popular(2, "nowhere", NOW_MS)) == ["i0", "i2"]


def test_what_is_popular_and_new_follows_stock_and_counts(rng: np.random.Generator) -> None:
    """Each is asked for again and again, and remembered until something changes."""
    catalogue = shop(rng, 4)
    catalogue.put_neighbours(counts("i0", popularity=9.0))
    catalogue.put_neighbours(counts("i1", popularity=5.0))

    def shown() -> tuple[list[str], list[str], list[str]]:
        lists = (
            catalogue.popular(2, None, NOW_MS),
            catalogue.popular(2, "north", NOW_MS),
            catalogue.new_arrivals(2, NOW_MS),
        )
        popular, in_north, new = (named(catalogue, rows) for rows in lists)
        return popular, in_north, new

    assert shown() == shown() == (["i0", "i1"], ["i0", "i1"], ["i3", "i2"])
    catalogue.put_neighbours(counts("i2", popularity=7.0, regions={"north": 1.0}))
    assert shown() == (["i0", "i2"], ["i2", "i0"], ["i3", "i2"])
    catalogue.remove(["i2"])
    assert shown() == (["i0", "i1"], ["i0", "i1"], ["i3", "i1"])
    catalogue.clear()
    assert shown() == ([], [], [])


def test_popularity_fades_with_its_age(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 2, popularity_half_life_ms=2 * DAY_MS)
    catalogue.put_neighbours(counts("i0", popularity=9.0, as_of_ms=NOW_MS - 8 * DAY_MS))
    catalogue.put_neighbours(counts("i1", popularity=1.0))
    assert named(catalogue, catalogue.popular(2, None, NOW_MS)) == ["i1", "i0"]


def test_a_region_forgets_what_is_no_longer_popular_in_it(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 3)
    catalogue.put_neighbours(counts("i0", popularity=9.0, regions={"north": 9.0}))
    catalogue.put_neighbours(counts("i1", popularity=99.0))
    catalogue.put_neighbours(counts("i0", popularity=9.0, regions={"south": 9.0}))
    assert named(catalogue, catalogue.popular(1, "north", NOW_MS)) == ["i1"]


def test_new_arrivals_go_by_when_an_item_came_into_the_shop(rng: np.random.Generator) -> None:
    catalogue = Catalogue(DIM)
    catalogue.put_items(
        [
            facts("old but edited", created_ms=NOW_MS - 9, updated_ms=NOW_MS + 9),
            facts("undated", updated_ms=NOW_MS - 5),
            facts("new", created_ms=NOW_MS),
        ]
    )
    catalogue.put_vectors(["old but edited", "undated", "new"], units(rng, 3))
    arrivals = named(catalogue, catalogue.new_arrivals(3, NOW_MS))
    assert arrivals == ["new", "undated", "old but edited"]


def test_a_large_catalogue_sorts_at_most_once_a_second_but_masks_at_once(
    rng: np.random.Generator,
) -> None:
    catalogue = shop(rng, 6000)
    catalogue.put_neighbours(counts("i1", popularity=1.0))
    assert named(catalogue, catalogue.new_arrivals(1, NOW_MS)) == ["i5999"]
    catalogue.put_item(facts("i0", updated_ms=NOW_MS + 10**6))
    catalogue.remove(["i5999"])
    assert named(catalogue, catalogue.new_arrivals(1, NOW_MS + 999)) == ["i5998"]
    assert named(catalogue, catalogue.new_arrivals(1, NOW_MS + 1000)) == ["i0"]


def test_each_batch_of_writes_changes_the_version(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 3)
    versions = [catalogue.version]
    for write in (
        lambda: catalogue.put_item(facts("i0", in_stock=False)),
        lambda: catalogue.put_vectors(["i0"], units(rng, 1)),
        lambda: catalogue.put_neighbours(counts("i0")),
        lambda: catalogue.remove(["i0"]),
        lambda: catalogue.rebuild(),
        lambda: catalogue.clear(),
    ):
        write()
        versions.append(catalogue.version)
    assert len(set(versions)) == len(versions)


def test_a_cleared_catalogue_is_empty(rng: np.random.Generator) -> None:
    catalogue = shop(rng, 300)
    catalogue.clear()
    assert (len(catalogue), catalogue.n_vectors, found(catalogue)) == (0, 0, set())
    assert catalogue.row("i0") == PADDING


@pytest.mark.parametrize(
    "factory", [lambda n: FlatIndex(DIM), lambda n: IvfIndex(DIM, n)], ids=["flat", "ivf"]
)
def test_a_large_catalogue_waits_for_its_owner_to_rebuild(
    rng: np.random.Generator, factory: Any
) -> None:
    catalogue = shop(rng, 2000, index_factory=factory, inline_below=0)
    assert catalogue.rebuild_due
    generation = catalogue.version.split(".")[0]
    assert catalogue.rebuild()
    assert catalogue.version.split(".")[0] != generation
    assert not catalogue.rebuild_due
    assert len(found(catalogue)) > 500


def test_a_quick_rebuild_renews_the_mean_and_leaves_a_real_one_due(
    rng: np.random.Generator,
) -> None:
    sizes: list[int] = []

    def factory(expected_items: int) -> ItemIndex:
        sizes.append(expected_items)
        return ExactIndex(DIM)

    quick = shop(np.random.default_rng(9), 50, index_factory=factory, inline_below=0)
    assert quick.rebuild(quick=True)
    assert sizes[-1] == 0
    assert quick.rebuild_due
    exact = shop(np.random.default_rng(9), 50)
    np.testing.assert_allclose(
        quick.centred(np.arange(50)), exact.centred(np.arange(50)), atol=1e-6
    )
    assert quick.rebuild()
    assert sizes[-1] == 50
    assert not quick.rebuild_due


def test_what_is_written_while_an_index_is_built_is_in_it(rng: np.random.Generator) -> None:
    built, go_on = threading.Event(), threading.Event()

    class Slow(ExactIndex):
        def upsert(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
            super().upsert(rows, vectors)
            if threading.current_thread().name == "builder" and not built.is_set():
                built.set()
                assert go_on.wait(10)

    catalogue = shop(rng, 40, index_factory=lambda _: Slow(DIM), inline_below=0)
    builder = threading.Thread(target=catalogue.rebuild, name="builder")
    builder.start()
    assert built.wait(10)
    moved, added = units(rng, 1), units(rng, 1)
    catalogue.put_vectors(["i3", "new"], np.concatenate([moved, added]))
    catalogue.put_item(facts("new"))
    catalogue.remove(["i5"])
    assert not catalogue.rebuild(), "one rebuild at a time"
    assert "new" in found(catalogue), "searches go on meanwhile"
    go_on.set()
    builder.join(10)
    assert found(catalogue) == set(ids(40)) - {"i5"} | {"new"}
    row = catalogue.rows(["i3"])
    scores, rows = catalogue.search(catalogue.centre(moved, np.ones(1, np.float32)), 1)
    assert rows[0, 0] == row[0]
    assert scores[0, 0] == pytest.approx(1, abs=1e-2)


def test_readers_and_a_writer_in_threads_never_see_what_is_removed(
    rng: np.random.Generator,
) -> None:
    catalogue = shop(rng, 400, index_factory=lambda n: FlatIndex(DIM))
    gone = [f"i{i}" for i in range(0, 400, 4)]
    catalogue.put_items([facts(item, in_stock=False) for item in gone])
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            wrong.extend(found(catalogue, 50) & set(gone))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        catalogue.put_vectors(ids(400), units(rng, 400))
        catalogue.drop_vectors([f"i{i}" for i in range(1, 400, 3)])
    stop.set()
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()
    assert wrong == []


def test_an_approximate_index_answers_as_the_exact_one(rng: np.random.Generator) -> None:
    def filled(factory: Any) -> Catalogue:
        catalogue = shop(np.random.default_rng(1), 3000, index_factory=factory)
        catalogue.put_items([facts(item, in_stock=False) for item in ids(3000)[::3]])
        return catalogue

    def index(n: int) -> ItemIndex:
        return IvfIndex(DIM, n)

    exact, approximate = filled(lambda n: ExactIndex(DIM)), filled(index)
    queries = exact.centred(np.arange(30))
    pairs = zip(exact.search(queries, 50)[1], approximate.search(queries, 50)[1], strict=True)
    assert np.mean([len(np.intersect1d(a, b)) / 50 for a, b in pairs]) >= 0.95
