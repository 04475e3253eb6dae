"""From what shoppers took to batches: what speaks for what, and what is no negative."""

from __future__ import annotations

from itertools import islice

import numpy as np
from encoder_shop import shop_behaviour

from models.training.examples import (
    Batches,
    Example,
    hard_negatives,
    known,
    next_items,
    pairs,
    together,
)


def test_what_was_taken_before_speaks_for_an_item_the_newest_most() -> None:
    found = next_items([7, 8, 9], decay=0.5)
    assert found == [Example((7,), (1.0,), 8), Example((7, 8), (0.5, 1.0), 9)]
    assert next_items([7, 8, 9], decay=0.5, first=2) == found[1:]


def test_a_history_reaches_ten_items_back() -> None:
    last = next_items(list(range(30)), decay=0.7)[-1]
    assert last.anchor == tuple(range(19, 29))


def test_what_is_taken_again_is_not_asked_for() -> None:
    assert [example.chosen for example in next_items([7, 8, 7, 9], decay=0.7)] == [8, 9]


def test_pairs_lie_near_each_other() -> None:
    found = {(*example.anchor, example.chosen) for example in pairs([1, 2, 3, 1, 5], window=2)}
    assert found == {(1, 2), (1, 3), (2, 3), (2, 1), (3, 1), (3, 5), (1, 5)}


def test_a_heavy_shopper_does_not_fill_a_batch_alone() -> None:
    runs = together(next_items(list(range(100)), 0.7))
    assert [len(run) for run in runs] == [20, 20, 20, 20, 19]


def batches(**options) -> Batches:
    behaviour = shop_behaviour()
    return Batches(behaviour.groups, len(behaviour.texts), 20, **options)


def test_a_batch_is_so_many_different_texts_and_whole_groups() -> None:
    for batch in islice(batches().endless(0), 30):
        assert len(set(batch.texts)) == len(batch.texts)
        assert len(batch.texts) <= 20 + 5
        assert batch.anchors.shape == batch.excluded.shape == (len(batch.chosen), len(batch.texts))


def test_a_round_has_every_example_once() -> None:
    n_examples = sum(map(len, shop_behaviour().groups))
    seen, passes = 0, batches().endless(0)
    while seen < n_examples:
        seen += len(next(passes).chosen)
    assert seen == n_examples


def test_no_choice_and_nothing_that_goes_with_the_anchor_is_a_negative() -> None:
    for batch in islice(batches().endless(0), 10):
        themes = batch.texts % 6
        for row, chosen in enumerate(batch.chosen):
            in_history = batch.anchors[row] > 0
            assert not batch.excluded[row, chosen]
            assert batch.excluded[row, in_history].all()
            # Items of other themes never go together in this shop.
            others = themes != themes[chosen]
            assert not batch.excluded[row, others].any()


def test_the_seed_decides_the_order() -> None:
    def first(seed: int) -> list[int]:
        return next(batches().endless(seed)).texts.tolist()

    assert first(1) == first(1) != first(2)


def test_hard_negatives_come_with_the_texts_that_are_asked_of() -> None:
    behaviour = shop_behaviour()
    never_taken = len(behaviour.texts)
    negatives = np.full((never_taken + 1, 4), never_taken)
    with_hard = Batches(behaviour.groups, never_taken + 1, 20, negatives)
    for batch in islice(with_hard.endless(0), 5):
        place = batch.texts.tolist().index(never_taken)
        assert not batch.excluded[:, place].any()
    none = Batches(behaviour.groups, never_taken, 20, np.full((never_taken, 4), -1))
    assert next(none.endless(0)).texts.max() < never_taken


def test_hard_negatives_are_near_and_do_not_go_with_the_text() -> None:
    angles = np.linspace(0, 1, 12)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    goes_with = known([[Example((0,), (1.0,), 2)]], 12)
    found = hard_negatives(vectors, goes_with, np.array([0]), np.arange(11), n=4)
    # 1 and 3 are nearest, and may be right; 2 goes with 0, and 11 is not looked among.
    assert found[0].tolist() == [4, 5, 6, 7]
    assert (found[1:] == -1).all()


def test_fewer_than_wanted_are_padded() -> None:
    vectors = np.eye(3, dtype=np.float32)
    goes_with = known([[Example((0,), (1.0,), 1)]], 3)
    found = hard_negatives(vectors, goes_with, np.array([0]), np.arange(3), n=4)
    assert set(found[0].tolist()) <= {2, -1}
