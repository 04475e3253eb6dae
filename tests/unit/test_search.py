from __future__ import annotations

import numpy as np
import pytest
from word_vectors import word_vectors

from models.catalogue import Catalogue
from models.items import ItemFacts
from models.matches import Match, Query
from models.query_mean import QueryMean
from models.search import ItemSearch, SearchRule
from models.text_index import TextIndex

DIM = 64
TITLES = ["red leather boots", "red leather shoes", "green tea leaves", "tea cup", "desk lamp"]


class Shop:
    """A catalogue and its search; item n is called n."""

    def __init__(self, *titles: str, n_candidates: int = 50, **rule: float) -> None:
        self.texts = TextIndex()
        self.catalogue = Catalogue(DIM, texts=self.texts)
        self.search = ItemSearch(
            self.catalogue,
            self.texts,
            SearchRule(**rule),  # type: ignore[arg-type]
            n_candidates,
        )
        self.put(dict(enumerate(titles)))

    def put(self, titles: dict[int, str], in_stock: bool = True) -> None:
        for number, title in titles.items():
            self.catalogue.put_item(ItemFacts(str(number), title, 1, in_stock))
        vectors = word_vectors(list(titles.values()), DIM)
        self.catalogue.put_vectors([str(number) for number in titles], vectors)
        self.texts.refresh()

    def __call__(self, text: str, k: int = 10, meant: str = "", **fields: object) -> list[Match]:
        vector = word_vectors([meant or text], DIM)[0]
        return self.search.search([Query(text, vector, **fields)], k)[0]  # type: ignore[arg-type]


def ids(matches: list[Match]) -> list[str]:
    return [match.item_id for match in matches]


def test_what_shares_words_and_meaning_comes_first():
    found = Shop(*TITLES)("leather boots")
    assert ids(found)[:2] == ["0", "1"]
    assert found[0].source == "both"
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)


def test_words_find_what_means_something_else_to_the_encoder():
    shop = Shop(*TITLES, n_candidates=2, feedback=0.0)
    found = {m.item_id: m.source for m in shop("lamp", meant="green tea leaves")}
    assert found["4"] == "words"
    assert found["2"] == "meaning"


def test_meaning_finds_what_shares_no_word():
    found = Shop(*TITLES)("boots", k=1, meant="green tea leaves")
    assert Shop(*TITLES, words=0.0)("boots", k=1, meant="green tea leaves")[0].item_id == "2"
    assert len(found) == 1


@pytest.mark.parametrize("gone", ["sold out", "removed", "without a vector"])
def test_what_may_not_be_sold_is_not_found(gone: str):
    shop = Shop(*TITLES)
    if gone == "sold out":
        shop.put({0: TITLES[0]}, in_stock=False)
    elif gone == "removed":
        shop.catalogue.drop_items(["0"])  # not refreshed: at once
    else:
        shop.catalogue.drop_vectors(["0"])
    assert "0" not in ids(shop("red leather boots"))


def test_many_sold_out_items_do_not_hide_the_others():
    shop = Shop(n_candidates=4)
    shop.put({number: f"lamp {number}" for number in range(60)}, in_stock=False)
    shop.put({number: "a lamp like many others in the shop" for number in range(60, 63)})
    assert {"60", "61", "62"} <= set(ids(shop("lamp", meant="tea")))


def test_the_first_items_found_speak_for_the_query():
    shoes = [f"trail shoes boots {n}" for n in range(20)]
    things = [f"thing number {n}" for n in range(20)]
    titles = [*shoes, "boots shoes", *things]
    without, fed = Shop(*titles, feedback=0.0, words=0.0), Shop(*titles, feedback=0.9, words=0.0)
    assert {int(i) for i in ids(fed("trail", k=21))} == set(range(21))
    assert ids(without("trail", k=1)) != []


def test_an_interest_moves_items_by_its_weight_alone():
    shoes = word_vectors(["red leather shoes"], DIM)[0]
    plain, personal = Shop(*TITLES), Shop(*TITLES, interest=4.0)
    assert ids(plain("red boots", interest=shoes)) == ids(plain("red boots"))
    assert ids(plain("red boots"))[0] == "0"
    assert ids(personal("red boots", interest=shoes))[0] == "1"


@pytest.mark.parametrize("liked", TITLES)
@pytest.mark.parametrize("query", ["red", "tea", "leather lamp", "boots"])
def test_no_interest_puts_what_shares_no_word_over_what_does(liked: str, query: str):
    def pairs(found: list[Match]) -> set[tuple[str, str]]:
        """Every match by words, with each item behind it that shares none."""
        return {
            (first.item_id, other.item_id)
            for place, first in enumerate(found)
            for other in found[place:]
            if first.source != "meaning" and other.source == "meaning"
        }

    interest = word_vectors([liked], DIM)[0]
    plain, personal = Shop(*TITLES), Shop(*TITLES, interest=1.0)
    assert pairs(plain(query)) <= pairs(personal(query, interest=interest))


def test_what_is_only_for_what_is_sought_comes_behind_it():
    titles = ["classic laptop case", "stand for laptop", "fast laptop", "mouse"]
    assert ids(Shop(*titles)("laptop", meant="classic laptop case"))[0] == "0"
    found = ids(Shop(*titles, heads=1.0)("laptop", meant="classic laptop case"))
    assert found.index("2") < min(found.index("0"), found.index("1"))


def test_an_empty_shop_answers_with_nothing_and_no_query_with_no_answer():
    shop = Shop()
    assert shop("boots") == []
    assert shop.search.search([], 5) == []


def test_no_more_than_k_and_each_once():
    found = ids(Shop(*TITLES)("red tea lamp", k=3))
    assert len(found) == len(set(found)) == 3


def test_the_same_question_has_the_same_answer_in_the_same_state():
    assert Shop(*TITLES)("red tea") == Shop(*TITLES)("red tea")


def test_of_those_that_fit_alike_the_first_in_the_shop_are_shown():
    assert ids(Shop(*["red boots"] * 30)("red boots", k=4)) == ["0", "1", "2", "3"]


def test_what_queries_have_in_common_is_taken_off():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((500, 8)).astype(np.float32) + 3
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    mean = QueryMean(8)
    mean.centred(queries)
    centred = mean.centred(queries)
    assert np.linalg.norm(centred.mean(axis=0)) < 0.2
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, rtol=1e-5)


def test_a_first_query_is_left_nearly_as_it_is():
    query = np.eye(4, dtype=np.float32)[:1]
    np.testing.assert_allclose(QueryMean(4).centred(query), query, atol=1e-6)


def test_a_query_asked_all_day_changes_others_no_more_than_asked_once():
    queries = word_vectors(["phone", "phone case", "tea", "lamp"], 16)
    once, often = QueryMean(16), QueryMean(16)
    for _ in range(100):
        often.centred(queries[:1])
    np.testing.assert_array_equal(once.centred(queries), often.centred(queries))


def test_old_queries_are_forgotten_by_halves():
    rng = np.random.default_rng(0)
    mean = QueryMean(2)
    for centre in (1.0, -1.0):
        angles = rng.normal(0, 0.01, 20_000)
        mean.centred(np.stack([centre * np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    up = np.array([[0, 1]], np.float32)
    # Nearly all that is remembered points left, and is taken off: what is left points right.
    assert mean.centred(up)[0, 0] > 0.3
