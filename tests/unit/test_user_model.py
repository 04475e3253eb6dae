"""A user model beside the hybrid score: what it finds is shown, explained and kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from builders import NOW_MS
from fakes import LastItemModel
from shop_catalogue import ShopCatalogue

from models.catalogue import Catalogue, GivenUp
from models.item_index import PADDING, ExactIndex
from models.items import ItemFacts
from models.learnt_items import LearntItems
from models.profile import HistoryItem, Profile
from models.recommender import Recommender

DIM, N_ITEMS = 12, 200


def units(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


VECTORS = {f"i{n}": vector for n, vector in enumerate(units(N_ITEMS))}


def shopper(*item_ids: str, weight: float = 1.0) -> Profile:
    acts = tuple(HistoryItem(item, weight, NOW_MS + n) for n, item in enumerate(item_ids))
    return Profile(acts, (), None, 0.0, None, 0.0, frozenset(item_ids))


def learnt_of(model: LastItemModel, *item_ids: str) -> np.ndarray:
    return model.items(item_ids, np.stack([VECTORS[item] for item in item_ids]))


def test_what_a_model_alone_finds_is_shown_as_an_interest_of_the_moment() -> None:
    model = LastItemModel(DIM, weight=50.0)
    catalogue = ShopCatalogue(VECTORS, DIM, model)
    recommender = Recommender(catalogue, diversity=0, n_candidates=10, user_model=model)
    ranked = recommender.recommend([shopper("i3", "i7")], 5, NOW_MS)[0]
    others = [item for item in VECTORS if item not in ("i3", "i7")]
    fit = learnt_of(model, *others) @ learnt_of(model, "i7")[0]
    assert {item.item_id for item in ranked} == {others[n] for n in np.argsort(-fit)[:5]}
    assert {item.source for item in ranked} == {"short_interest"}
    assert {item.reasons[0].kind for item in ranked} == {"recent_interest"}
    assert recommender.name == "hybrid-1+last-item"


def test_without_weight_the_lists_are_those_of_the_hybrid() -> None:
    model = LastItemModel(DIM, weight=0.0)
    catalogue = ShopCatalogue(VECTORS, DIM, model)
    who = [shopper("i3", "i7"), shopper("i50"), shopper()]
    # The hybrid must have looked at everything: another source brings it items that it missed.
    with_model = Recommender(catalogue, n_candidates=N_ITEMS, user_model=model)
    without = Recommender(catalogue, n_candidates=N_ITEMS)
    assert with_model.recommend(who, 10, NOW_MS) == without.recommend(who, 10, NOW_MS)
    assert without.name == "hybrid-1"


def test_an_item_that_has_just_arrived_is_found_by_its_text() -> None:
    model = LastItemModel(DIM, weight=50.0)
    catalogue = ShopCatalogue(VECTORS, DIM, model)
    recommender = Recommender(catalogue, user_model=model)
    catalogue.put_items([ItemFacts("new", "new", NOW_MS)])
    catalogue.put_vectors(["new"], VECTORS["i7"][None])
    assert recommender.recommend([shopper("i7")], 1, NOW_MS)[0][0].item_id == "new"
    catalogue.drop_vectors(["new"])
    assert "new" not in {r.item_id for r in recommender.recommend([shopper("i7")], 5, NOW_MS)[0]}


def test_who_is_only_against_things_is_told_nothing_by_the_model() -> None:
    model = LastItemModel(DIM, weight=50.0)
    catalogue = ShopCatalogue(VECTORS, DIM, model)
    against = [shopper("i7", weight=-2.0)]
    ranked = Recommender(catalogue, user_model=model).recommend(against, 5, NOW_MS)
    assert ranked == Recommender(catalogue).recommend(against, 5, NOW_MS)


@pytest.fixture
def model() -> LastItemModel:
    return LastItemModel(DIM)


def catalogue_of(model: LastItemModel, n: int = 40) -> Catalogue:
    catalogue = Catalogue(DIM, learnt=LearntItems(model, lambda _: ExactIndex(model.dim)))
    ids = [f"i{number}" for number in range(n)]
    catalogue.put_items([ItemFacts(item, item, NOW_MS) for item in ids])
    catalogue.put_vectors(ids, units(n))
    return catalogue


def test_learnt_vectors_follow_the_encoders(model: LastItemModel) -> None:
    catalogue = catalogue_of(model)
    other = units(1, seed=9)
    catalogue.put_vectors(["i3"], other)
    catalogue.drop_vectors(["i4"])
    changed, gone, kept = catalogue.learnt(catalogue.rows(["i3", "i4", "i5"]))
    # Vectors are kept in half precision.
    assert changed == pytest.approx(model.items(["i3"], other)[0], abs=2e-3)
    assert not gone.any()
    assert kept == pytest.approx(learnt_of(model, "i5")[0], abs=2e-3)
    catalogue.rebuild()
    assert catalogue.learnt(catalogue.rows(["i3"]))[0] == pytest.approx(changed, abs=1e-6)
    catalogue.clear()
    assert not catalogue.learnt(np.arange(40)).any()


def test_a_snapshot_brings_learnt_vectors_back(model: LastItemModel) -> None:
    before = catalogue_of(model)
    after = Catalogue(DIM, learnt=LearntItems(model, lambda _: ExactIndex(model.dim)))
    after.restore(before.state())
    ids = [f"i{number}" for number in range(40)]
    assert (after.learnt(after.rows(ids)) == before.learnt(before.rows(ids))).all()


def test_what_is_sold_out_is_not_found(model: LastItemModel) -> None:
    catalogue = catalogue_of(model)
    query = learnt_of(model, "i5")
    assert catalogue.item_id(int(catalogue.search_learnt(query, 1)[1][0, 0])) == "i5"
    catalogue.put_items([ItemFacts("i5", "i5", NOW_MS, in_stock=False)])
    rows = catalogue.search_learnt(query, 40)[1][0]
    assert catalogue.row("i5") not in rows.tolist()
    assert (rows == PADDING).sum() == 1


def test_a_catalogue_without_a_model_has_learnt_nothing() -> None:
    catalogue = ShopCatalogue(VECTORS, DIM)
    assert catalogue.learnt(catalogue.rows(["i1"])).shape == (1, 0)
    assert (catalogue.search_learnt(np.zeros((2, 0), np.float32), 3)[1] == PADDING).all()


class Scaled(LastItemModel):
    """Another model, that learnt otherwise; ``interrupted`` is called while it learns."""

    name = "last-item-2"

    def __init__(self, interrupted: Callable[[], None] = lambda: None) -> None:
        super().__init__(DIM, dim=7)
        self._interrupted = interrupted
        self.is_interrupted = False

    def items(self, item_ids: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        found = super().items(item_ids, vectors)
        if not self.is_interrupted:
            self.is_interrupted = True
            self._interrupted()
        return found


def all_learnt(catalogue: Catalogue) -> np.ndarray:
    return catalogue.learnt(catalogue.rows([f"i{number}" for number in range(40)]))


def test_another_model_takes_its_place_whole(model: LastItemModel) -> None:
    catalogue, other = catalogue_of(model), Scaled()
    before, version = all_learnt(catalogue), catalogue.version
    learnt = LearntItems(other, lambda _: ExactIndex(other.dim))
    catalogue.learn(learnt)
    assert (all_learnt(catalogue) == before).all()
    assert catalogue.version == version
    catalogue.adopt(learnt)
    assert catalogue.version != version
    ids = [f"i{number}" for number in range(40)]
    assert all_learnt(catalogue) == pytest.approx(other.items(ids, units(40)), abs=2e-3)
    rows = catalogue.search_learnt(other.items(["i5"], units(40)[5:6]), 1)[1]
    assert catalogue.item_id(int(rows[0, 0])) == "i5"
    catalogue.put_vectors(["i3"], units(1, seed=9))
    assert all_learnt(catalogue)[3] == pytest.approx(other.items(["i3"], units(1, 9))[0], abs=2e-3)


def test_what_changes_while_it_learns_is_learnt_as_it_is_in_the_end(model: LastItemModel) -> None:
    catalogue, new = catalogue_of(model), units(1, seed=9)

    def change() -> None:
        catalogue.put_vectors(["i3", "new"], np.concatenate([new, new]))
        catalogue.drop_vectors(["i4"])

    other = Scaled(change)
    learnt = LearntItems(other, lambda _: ExactIndex(other.dim))
    catalogue.learn(learnt)
    catalogue.drop_vectors(["i6"])
    catalogue.adopt(learnt)
    expected = other.items(["i3"], new)[0]
    assert all_learnt(catalogue)[3] == pytest.approx(expected, abs=2e-3)
    assert catalogue.learnt(catalogue.rows(["new"]))[0] == pytest.approx(expected, abs=2e-3)
    assert not all_learnt(catalogue)[[4, 6]].any()


def test_a_catalogue_that_is_emptied_while_it_learns_has_nothing_learnt(
    model: LastItemModel,
) -> None:
    catalogue = catalogue_of(model)
    other = Scaled(catalogue.clear)
    learnt = LearntItems(other, lambda _: ExactIndex(other.dim))
    catalogue.learn(learnt)
    catalogue.adopt(learnt)
    assert not catalogue.learnt(np.arange(40)).any()


def test_a_model_that_is_given_up_is_told_of_nothing_more(model: LastItemModel) -> None:
    catalogue = catalogue_of(model)
    other = Scaled(catalogue.give_up)
    learnt = LearntItems(other, lambda _: ExactIndex(other.dim))
    before = all_learnt(catalogue)
    with pytest.raises(GivenUp):
        catalogue.learn(learnt)
    catalogue.put_vectors(["late"], units(1, seed=9))
    assert not learnt.vectors(catalogue.rows(["late"])).any()
    assert (all_learnt(catalogue) == before).all()


def test_a_model_that_fails_while_it_learns_leaves_the_other_in_use(model: LastItemModel) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    catalogue, before = catalogue_of(model), all_learnt(catalogue_of(model))
    other = Scaled(fail)
    with pytest.raises(ZeroDivisionError):
        catalogue.learn(LearntItems(other, lambda _: ExactIndex(other.dim)))
    catalogue.put_vectors(["late"], units(1, seed=9))
    assert (all_learnt(catalogue) == before).all()
