"""A set in few bytes forgets nothing, in whatever form it is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.hashed_ids import HashedIds, hash_of

ids = st.lists(st.text(min_size=1, max_size=8), max_size=60)


def forms(held: HashedIds) -> list[HashedIds]:
    found = [held]
    while (coarser := found[-1].coarser()) is not None:
        found.append(coarser)
    return found


@given(ids)
def test_no_form_forgets_an_id(item_ids):
    for held in forms(HashedIds().plus(item_ids)):
        assert all(item_id in held for item_id in item_ids)


@given(ids, ids)
def test_many_hashes_at_once_are_answered_as_one_id_after_the_other(item_ids, others):
    asked = item_ids + others
    hashes = np.array([hash_of(item_id) for item_id in asked], np.uint32)
    for held in forms(HashedIds().plus(item_ids)):
        assert held.may_hold(hashes).tolist() == [item_id in held for item_id in asked]


@given(ids, ids)
def test_order_and_repeats_do_not_matter_in_any_form(some, others):
    whole = forms(HashedIds().plus(some + others))
    assert forms(HashedIds().plus(others).plus(some).plus(others)) == whole
    assert HashedIds().plus(some).union(HashedIds().plus(others)) == whole[0]
    for form in whole:
        shorter = HashedIds().plus(some)
        while shorter.bits > form.bits and (next_one := shorter.coarser()) is not None:
            shorter = next_one
        if shorter.bits == form.bits:
            assert shorter.plus(others) == form


@given(ids)
def test_each_form_takes_fewer_bytes_than_the_one_before(item_ids):
    sizes = [len(form.raw) for form in forms(HashedIds().plus(item_ids))]
    assert sizes == sorted(set(sizes), reverse=True)


def test_strangers_are_taken_for_members_as_seldom_as_the_bits_allow():
    members = [f"item {n}" for n in range(200)]
    strangers = [f"stranger {n}" for n in range(20_000)]
    for held in forms(HashedIds().plus(members)):
        share = np.mean([stranger in held for stranger in strangers])
        assert share < 1.3 * 200 / 2**held.bits + 0.001


def test_two_neighbours_in_a_list_are_not_read_as_a_third():
    held = HashedIds(16, bytes([0, 1, 2, 3]))
    assert [held._hashes().tolist(), len(held)] == [[1, 515], 2]
    found = [n for n in range(100_000) if f"{n}" in held]
    assert {hash_of(f"{n}") >> 8 for n in found} <= {1, 515}
