"""Ranking metrics against scikit-learn's where it has them, and by hand where it has not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from models.evaluation import ranking
from models.evaluation.baselines import best
from models.evaluation.ranking import PADDING


def items(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_one_target_is_found_where_it_stands() -> None:
    lists = np.array([[4, 2, 7], [1, 5, PADDING], [3, 0, 9]])
    values = ranking.per_user(lists, [items(2), items(5), items(8)], [1, 3])
    assert values["recall_at_1"].tolist() == [0, 0, 0]
    assert values["recall_at_3"].tolist() == [1, 1, 0]
    assert values["mrr_at_3"].tolist() == [0.5, 0.5, 0]
    assert values["ndcg_at_3"] == pytest.approx([1 / np.log2(3), 1 / np.log2(3), 0])


def test_of_more_targets_than_places_all_places_may_be_right() -> None:
    values = ranking.per_user(np.array([[1, 2]]), [items(1, 2, 3, 4)], [2])
    assert values["recall_at_2"].tolist() == [1.0]
    assert values["ndcg_at_2"].tolist() == [1.0]


def test_the_same_item_of_another_user_is_no_hit() -> None:
    assert not ranking.hits(np.array([[1], [2]]), [items(2), items(1)]).any()


def test_padding_is_never_a_hit() -> None:
    assert not ranking.hits(np.array([[PADDING]]), [items(0)]).any()
    # Nor is it the last item of the user before.
    assert not ranking.hits(np.array([[3], [PADDING]]), [items(0, 1, 2, 4), items(0)]).any()


@pytest.mark.parametrize(("targets", "text"), [([items()], "at least one"), ([], "of 1 lists")])
def test_what_cannot_be_asked_is_an_error(targets: list[np.ndarray], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ranking.hits(np.array([[1]]), targets)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6))
@settings(max_examples=60)
def test_ndcg_is_that_of_scikit_learn(seed: int, k: int, n_targets: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(12).astype(np.float32)[None]
    targets = rng.choice(12, n_targets, replace=False)
    truth = np.isin(np.arange(12), targets)[None]
    values = ranking.per_user(best(scores, 12), [targets], [k])
    assert values[f"ndcg_at_{k}"][0] == pytest.approx(ndcg_score(truth, scores, k=k))


def test_graded_ndcg_counts_what_was_left_out_of_the_list() -> None:
    [value] = ranking.graded_ndcg([np.array([1.0, 3.0])], 2, [np.array([3.0, 1.0, 2.0])])
    assert value == pytest.approx((1 + 7 / np.log2(3)) / (7 + 3 / np.log2(3)))
    assert ranking.graded_ndcg([np.zeros(2)], 2, [np.zeros(2)]).tolist() == [0.0]


def test_coverage_and_gini_tell_a_shelf_from_a_shop_window() -> None:
    spread, one = np.array([[0, 1], [2, 3]]), np.array([[0, PADDING], [0, PADDING]])
    assert (ranking.coverage(spread, 4), ranking.coverage(one, 4)) == (1.0, 0.25)
    assert ranking.gini(spread, 4) == pytest.approx(0)
    assert ranking.gini(one, 4) == pytest.approx(0.75)  # 1 - 1/n is the most there is


def test_what_few_took_is_novel() -> None:
    takers = np.array([8, 4, 4, 0])
    values = ranking.novelty(np.array([[0, PADDING], [1, 2], [3, 3]]), takers)
    assert values == pytest.approx([1, 2, 4])


def test_diversity_is_one_less_the_mean_cosine() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    values = ranking.diversity(np.array([[0, 1, PADDING], [0, 1, 2], [0, 0, 0]]), vectors)
    assert values == pytest.approx([1, 1 + 1 / 3, 0])
    assert np.isnan(ranking.diversity(np.array([[0, PADDING]]), vectors)[0])
