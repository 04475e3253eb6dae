from __future__ import annotations

import math
from typing import Any

from builders import NOW_MS
from hypothesis import given
from hypothesis import strategies as st

from stream.core.item_rows import from_row, to_row
from stream.core.item_state import CountingRules, ItemState, fold, to_neighbours
from stream.messages import ItemTouch

DAY_MS = 86_400_000
RULES = CountingRules(30 * DAY_MS, DAY_MS, neighbours_kept=256)

touches = st.builds(
    ItemTouch,
    item_id=st.just("boots"),
    others=st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5),
    weight=st.sampled_from([0.0, 0.3, 1.5, -0.5]),
    first=st.booleans(),
    event_time_ms=st.integers(NOW_MS - 60 * DAY_MS, NOW_MS),
    region=st.sampled_from([None, "north", "south"]),
)
batches = st.lists(touches, max_size=12)


def folded(batch: list[ItemTouch], *, size: int = 1000, rules: CountingRules = RULES) -> ItemState:
    state, placed = ItemState("boots"), list(enumerate(batch))
    for start in range(0, len(placed), size):
        state = fold(state, placed[start : start + size], rules)
    return state


def assert_same(one: ItemState, other: ItemState) -> None:
    assert one.as_of_ms == other.as_of_ms
    assert math.isclose(one.n_users, other.n_users, rel_tol=1e-6)
    assert math.isclose(one.popularity, other.popularity, rel_tol=1e-6, abs_tol=1e-6)
    assert math.isclose(one.lasting, other.lasting, rel_tol=1e-6, abs_tol=1e-6)
    for name in ("neighbours", "regions"):
        mine, theirs = getattr(one, name), getattr(other, name)
        for key in mine.keys() | theirs.keys():
            # What fell below the smallest count kept may be missing on one side.
            assert math.isclose(mine.get(key, 0), theirs.get(key, 0), rel_tol=1e-5, abs_tol=2e-6)


@given(batches, st.randoms(use_true_random=False))
def test_arrival_order_does_not_matter(batch: list[ItemTouch], random: Any) -> None:
    assert_same(folded(batch), folded(random.sample(batch, len(batch))))


@given(batches, st.integers(1, 4))
def test_the_cut_into_micro_batches_does_not_matter(batch: list[ItemTouch], size: int) -> None:
    assert_same(folded(batch), folded(batch, size=size))


@given(batches)
def test_folding_twice_is_the_same_as_once(batch: list[ItemTouch]) -> None:
    once = folded(batch)
    assert fold(once, list(enumerate(batch)), RULES) == once


@given(batches)
def test_a_row_is_read_back_exactly(batch: list[ItemTouch]) -> None:
    state = folded(batch)
    assert from_row(to_row(state)) == state


@given(batches, st.integers(1, 5))
def test_never_more_neighbours_than_kept_and_none_left_out_is_larger(
    batch: list[ItemTouch], kept: int
) -> None:
    state = folded(batch)
    rules = CountingRules(30 * DAY_MS, DAY_MS, neighbours_kept=kept)
    published = dict(to_neighbours(state, rules).neighbours)
    assert len(published) == min(kept, len(state.neighbours))
    left_out = [count for key, count in state.neighbours.items() if key not in published]
    assert max(left_out, default=0) <= min(published.values(), default=0)
    assert len(folded(batch, rules=rules).neighbours) <= 2 * kept
