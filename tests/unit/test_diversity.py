from __future__ import annotations

import numpy as np
import pytest

from models.diversity import pick_diverse

BOOTS, HAT, SOCKS = np.eye(3, dtype=np.float32)
VECTORS = np.stack([BOOTS, BOOTS, HAT, SOCKS])
SCORES = np.asarray([0.9, 0.8, 0.5, 0.1], np.float32)


def test_without_diversity_the_order_is_that_of_the_scores() -> None:
    assert pick_diverse(SCORES[::-1].copy(), VECTORS, 3, 0.0).tolist() == [3, 2, 1]


def test_a_copy_of_what_is_picked_already_waits() -> None:
    assert pick_diverse(SCORES, VECTORS, 3, 0.5).tolist() == [0, 2, 3]


def test_a_little_diversity_keeps_a_much_better_copy() -> None:
    assert pick_diverse(SCORES, VECTORS, 3, 0.1).tolist() == [0, 1, 2]


def test_the_best_score_always_comes_first() -> None:
    assert pick_diverse(SCORES, VECTORS, 1, 1.0).tolist() == [0]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_fewer_candidates_than_places_are_all_picked_once(diversity: float) -> None:
    assert sorted(pick_diverse(SCORES, VECTORS, 10, diversity).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_scores_does_not_matter(scale: float) -> None:
    scores = SCORES * np.float32(scale)
    assert pick_diverse(scores, VECTORS, 4, 0.4).tolist() == [0, 2, 1, 3]


def test_equal_scores_are_kept_apart_too() -> None:
    scores = np.ones(4, np.float32)
    assert pick_diverse(scores, VECTORS, 3, 0.3).tolist() == [0, 2, 3]


def test_no_candidates_give_no_picks() -> None:
    assert not len(pick_diverse(SCORES[:0], VECTORS[:0], 5, 0.5))
