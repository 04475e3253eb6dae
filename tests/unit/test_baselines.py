"""Baselines on a shop small enough to know what they must say."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import baselines
from models.evaluation.baselines import Baseline, ranked
from models.evaluation.ranking import PADDING

HISTORIES = [np.array(h) for h in ([0, 1], [0, 1, 2], [3, 4], [3, 4], [0, 5])]
TITLES = ["red wool dress", "red silk dress", "red dress", "blue tea pot", "tea pot", "red pot"]


def first(baseline: Baseline, *history: int) -> int:
    return int(ranked(baseline, [np.array(history)], 1)[0, 0])


def test_popular_is_what_most_took_and_has_not_been_taken() -> None:
    popular = baselines.popularity(HISTORIES, 6)
    assert ranked(popular, [np.array([5])], 3).tolist() == [[0, 1, 3]]
    assert first(popular, 0) == 1


def test_recently_popular_looks_at_the_last_ones_alone() -> None:
    assert first(baselines.recent_popularity(HISTORIES, 6, last=1), 5) == 4


def test_what_others_took_with_it_comes_first() -> None:
    knn = baselines.item_knn(HISTORIES, 6)
    assert (first(knn, 3), first(knn, 0)) == (4, 1)
    factors = baselines.als(HISTORIES, 6, factors=2)
    assert (first(factors, 3), first(factors, 4)) == (4, 3)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others() -> None:
    taken = baselines.matrix(HISTORIES, 6).toarray().astype(np.float64)
    scores = baselines.ease(HISTORIES, 6, ridge=2.0)(HISTORIES)
    for item in range(6):
        others = np.delete(taken, item, axis=1)
        weights = np.linalg.solve(others.T @ others + 2 * np.eye(5), others.T @ taken[:, item])
        assert scores[:, item] == pytest.approx(others @ weights, abs=1e-6)


def test_only_the_nearest_neighbours_count() -> None:
    scores = baselines.item_knn(HISTORIES, 6, neighbours=1)([np.array([0])])
    assert (scores > 0).sum() == 1


def test_titles_find_titles_alike() -> None:
    assert first(baselines.tf_idf(TITLES), 3) == 4
    vectors = np.eye(6, dtype=np.float32)
    vectors[1] = (vectors[0] + vectors[1]) / np.sqrt(2)
    assert first(baselines.content(vectors), 0) == 1
    assert first(baselines.last_item(vectors), 4, 0) == 1


def test_word_vectors_are_unit_and_unknown_titles_zero() -> None:
    vectors = baselines.word_vectors([*TITLES, "unheard"], dim=8)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1] * 6 + [0])
    assert (vectors == baselines.word_vectors([*TITLES, "unheard"], dim=8)).all()


def test_the_hybrid_weighs_texts_against_takers() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8)).astype(np.float32)
    vectors[5] = vectors[3]  # the same text as 3, and nobody took both
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert first(baselines.hybrid(HISTORIES, vectors, text_share=1.0), 3) == 5
    assert first(baselines.hybrid(HISTORIES, vectors, text_share=0.0), 3) == 4


def test_lists_are_padded_where_nothing_is_left() -> None:
    lists = ranked(baselines.popularity(HISTORIES, 6), [np.arange(5)], 6)
    assert lists.tolist() == [[5, *[PADDING] * 5]]
    assert ranked(baselines.popularity(HISTORIES, 6), [], 3).shape == (0, 3)
