from __future__ import annotations

import numpy as np
import pytest

from models.items import ItemFacts
from models.text_index import TextIndex


def facts(title: str, **fields: object) -> ItemFacts:
    return ItemFacts(title, title, 1, **fields)  # type: ignore[arg-type]


def index(*titles: str) -> TextIndex:
    made = TextIndex()
    made.put(range(len(titles)), [facts(title) for title in titles])
    made.refresh()
    return made


def found(texts: TextIndex, query: str, k: int = 10) -> list[int]:
    return texts.search(query, k).rows.tolist()


def test_items_that_hold_more_and_rarer_words_come_first():
    texts = index("red boots", "red shoes", "red leather boots", "tea")
    assert found(texts, "leather boot") == [2, 0]


def test_title_brand_and_categories_are_searched():
    texts = TextIndex()
    texts.put([7], [facts("Trail 3", brand="Salomon", categories=("Shoes", "Outdoor"))])
    texts.refresh()
    assert [found(texts, query) for query in ("trail", "salomon", "shoe", "boots")] == [
        [7],
        [7],
        [7],
        [],
    ]


def test_chinese_words_are_found_in_titles_without_spaces():
    assert found(index("小米蓝牙耳机", "紫砂茶壶"), "蓝牙") == [0]


def test_what_is_put_again_is_found_by_its_new_text_alone():
    texts = index("red boots", "tea")
    texts.put([0], [facts("green cup")])
    texts.refresh()
    assert found(texts, "boots") == []
    assert found(texts, "green tea cup") == [0, 1]


def test_what_is_dropped_or_cleared_is_not_found():
    texts = index("red boots", "red shoes")
    texts.drop([1, 99])
    texts.refresh()
    assert found(texts, "red") == [0]
    texts.clear()
    texts.put([5], [facts("red cup")])
    texts.refresh()
    assert found(texts, "red") == [5]


def test_changes_wait_for_a_refresh_which_may_take_some_at_a_time():
    texts = index()
    texts.put(range(5), [facts(f"lamp {n}") for n in range(5)])
    assert (texts.n_waiting, found(texts, "lamp")) == (5, [])
    assert texts.refresh(2) == 3
    assert found(texts, "lamp") == [0, 1]
    assert texts.refresh() == 0
    assert len(found(texts, "lamp")) == 5


def test_an_answer_is_remembered_for_its_own_number_of_items():
    texts = index(*[f"lamp {n}" for n in range(9)])
    assert [len(found(texts, "lamp", k)) for k in (2, 5, 2, 20)] == [2, 5, 2, 9]
    assert texts.search("lamp", 5) is texts.search("lamp", 5)


def test_a_title_says_what_the_thing_is_whatever_its_row():
    texts = TextIndex()
    texts.put([2**31 - 1, 0], [facts("laptop case"), facts("fast laptop")])
    texts.refresh()
    answer = texts.search("laptop", 5)
    assert dict(zip(answer.rows.tolist(), answer.is_named.tolist(), strict=True)) == {
        2**31 - 1: False,
        0: True,
    }


def test_only_what_is_found_by_words_is_indexed_anew():
    texts = index("red boots")
    texts.put([0], [facts("red boots", price=9.5)])
    assert texts.n_waiting == 0
    texts.put([0], [facts("red boots", brand="Salomon")])
    assert texts.n_waiting == 1


def test_what_is_sold_out_is_not_found_until_it_is_back():
    texts = index("red boots")
    for in_stock, rows in ((False, []), (True, [0])):
        texts.put([0], [facts("red boots", in_stock=in_stock)])
        texts.refresh()
        assert found(texts, "boots") == rows


def test_scores_lie_between_0_and_1_and_compare_across_queries():
    texts = index("red boots", "red shoes", *(f"thing {n}" for n in range(50)))
    whole = texts.search("red boots", 1).scores[0]
    half = texts.search("red boots for unknownword", 1).scores[0]
    assert 0 < half < whole < 1


@pytest.mark.parametrize("query", ["", "?!", "the", "nothinglikeit", "x" * 100_000, "a b " * 9999])
def test_queries_without_a_match_find_nothing(query: str):
    nothing = index("red boots").search(query, 5)
    assert (len(nothing.rows), len(nothing.scores)) == (0, 0)
    assert nothing.rows.dtype == np.int64


def test_no_more_than_k_are_returned():
    texts = index(*(f"lamp {n}" for n in range(9)))
    assert len(found(texts, "lamp", 3)) == 3
    assert found(texts, "lamp", 0) == []


def test_it_tells_whether_a_query_names_the_thing_itself():
    texts = index(
        "Laptop Case", "Stand for laptop", "ThinkPad Laptop T14", "L1906", "手机壳", "手机"
    )
    for query, named in {
        "laptop": {0: False, 1: False, 2: True},
        "laptop case": {0: True, 1: False, 2: True},
        "l1906": {3: True},  # a title of numbers does not say what it is
        "手机": {4: False, 5: True},
    }.items():
        found = texts.search(query, 10)
        assert dict(zip(found.rows.tolist(), found.is_named.tolist(), strict=True)) == named, query
