from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.diversity import pick_diverse

BOOTS, HAT, SOCKS = np.eye(3, dtype=np.float32)
VECTORS = np.stack([BOOTS, BOOTS, HAT, SOCKS])
SCORES = np.asarray([0.9, 0.8, 0.5, 0.1], np.float32)


def picks(scores: NDArray[np.float32], k: int, diversity: float) -> list[int]:
    vectors = VECTORS[: len(scores)]
    return pick_diverse([(0, len(scores))], scores, vectors, k, diversity).tolist()


def test_without_diversity_the_order_is_that_of_the_scores() -> None:
    assert picks(SCORES[::-1].copy(), 3, 0.0) == [3, 2, 1]


def test_a_copy_of_what_is_picked_already_waits() -> None:
    assert picks(SCORES, 3, 0.5) == [0, 2, 3]


def test_a_little_diversity_keeps_a_much_better_copy() -> None:
    assert picks(SCORES, 3, 0.1) == [0, 1, 2]


def test_the_best_score_always_comes_first() -> None:
    assert picks(SCORES, 1, 1.0) == [0]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_fewer_candidates_than_places_are_all_picked_once(diversity: float) -> None:
    assert sorted(picks(SCORES, 10, diversity)) == [0, 1, 2, 3]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_scores_does_not_matter(scale: float) -> None:
    scores = SCORES * np.float32(scale)
    assert picks(scores, 4, 0.4) == [0, 2, 1, 3]


def test_equal_scores_are_kept_apart_too() -> None:
    scores = np.ones(4, np.float32)
    assert picks(scores, 3, 0.3) == [0, 2, 3]


def test_no_candidates_give_no_picks() -> None:
    assert picks(SCORES[:0], 5, 0.5) == []


def test_every_shopper_gets_picks_of_its_own_candidates() -> None:
    scores = np.concatenate([SCORES, SCORES[:1], SCORES[::-1]])
    vectors = np.concatenate([VECTORS, VECTORS[:1], VECTORS[::-1]])
    bounds = [(0, 4), (4, 4), (4, 5), (5, 9)]

    picked = pick_diverse(bounds, scores, vectors, 3, 0.5)

    assert picked.tolist() == [0, 2, 3, 4, 8, 6, 5]


def test_no_shoppers_have_no_picks() -> None:
    assert not len(pick_diverse([], SCORES[:0], VECTORS[:0], 5, 0.5))
