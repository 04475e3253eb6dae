"""Partial correlations: what goes together beyond what other items explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from models import partial_correlations as module
from models.item_index import PADDING
from models.neighbours import NeighbourTable, Taken
from models.partial_correlations import Counted, PartialCorrelations, partial_correlations

DAY_MS = 86_400_000


def both_of(taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many took two items, with a diagonal of zeros, and how many took one."""
    both = (taken.T @ taken).astype(np.float32)
    users = np.diag(both).astype(np.float64)
    np.fill_diagonal(both, 0)
    return both, users


def table_of(both: np.ndarray, users: Sequence[float]) -> NeighbourTable:
    table = NeighbourTable(180 * DAY_MS)
    for row, counts in enumerate(both):
        others = np.flatnonzero(counts).astype(np.int32)
        table.put(row, Taken(others, counts[others].astype(np.float32)), users[row], DAY_MS)
    return table


@pytest.fixture
def chain() -> np.ndarray:
    """Who took which of three items: the middle one is what the others have in common."""
    rng = np.random.default_rng(0)
    middle = rng.random(4000) < 0.3
    sides = [np.where(rng.random(4000) < 0.8, middle, rng.random(4000) < 0.3) for _ in range(2)]
    return np.stack([sides[0], middle, sides[1]], axis=1).astype(np.float64)


def test_what_a_third_item_explains_is_gone(chain: np.ndarray) -> None:
    both, users = both_of(chain)
    cosines = both / np.sqrt(np.outer(users, users))
    partial = partial_correlations(both, users, 1.0)
    assert cosines[0, 2] > 0.5
    assert partial[0, 2] < 0.25 * cosines[0, 2]
    assert partial[0, 1] > 0.5 * cosines[0, 1]
    assert partial == pytest.approx(partial.T)
    assert np.diag(partial).tolist() == [0, 0, 0]


def test_a_ridge_beyond_all_counts_leaves_the_cosines_made_smaller_by_it(chain: np.ndarray) -> None:
    both, users = both_of(chain)
    found = partial_correlations(both, users, 1e6)
    assert found == pytest.approx(both / np.sqrt(np.outer(users + 1e6, users + 1e6)), rel=1e-2)


def test_only_what_was_taken_together_and_speaks_for_it_is_told() -> None:
    rng = np.random.default_rng(1)
    taken = (rng.random((60, 30)) < 0.2).astype(np.float64)
    both, users = both_of(taken)
    found = partial_correlations(both, users, 2.0)
    assert (found >= 0).all()
    assert (found[both == 0] == 0).all()
    assert 0 < np.count_nonzero(found) < np.count_nonzero(both)


def test_counts_of_no_sets_of_users_are_told_apart_all_the_same() -> None:
    """As of a window of acts: each of a ring goes with the next, who hardly has another user."""
    both = np.zeros((9, 9), np.float32)
    for item in range(9):
        both[item, (item + 1) % 9] = both[(item + 1) % 9, item] = 30  # of 10 users, again and again
    found = partial_correlations(both, np.full(9, 10.0), 0.1)
    assert np.isfinite(found).all()
    assert (found[both > 0] > 0).all()
    assert found.max() <= 1


def test_counts_are_square_whatever_the_items_say_of_each_other() -> None:
    others = np.array([[7, 99, 5], [2, PADDING, PADDING], [PADDING] * 3], np.int32)
    counts = np.array([[3, 8, 1], [4, 0, 0], [0, 0, 0]], np.float32)
    counted = Counted(np.array([2, 7, 5]), np.array([5.0, 6, 7]), others, counts)
    assert counted.matrix().tolist() == [[0, 4, 1], [4, 0, 0], [1, 0, 0]]


def test_a_count_that_is_no_number_says_nothing() -> None:
    others = np.array([[1, 2], [0, 2], [0, 1]], np.int32)
    counts = np.array([[np.nan, 2], [np.nan, 3], [-2, 3]], np.float32)
    counted = Counted(np.arange(3), np.array([5.0, 5, 5]), others, counts)
    assert counted.matrix().tolist() == [[0, 0, 2], [0, 0, 3], [2, 3, 0]]


def test_counts_of_the_most_taken_are_as_of_the_newest_time() -> None:
    table = NeighbourTable(10 * DAY_MS)
    table.put(3, Taken(np.array([4], np.int32), np.array([6], np.float32)), 8.0, DAY_MS)
    table.put(4, Taken(np.array([3], np.int32), np.array([3], np.float32)), 6.0, 11 * DAY_MS)
    table.put(6, Taken(np.array([3], np.int32), np.array([1], np.float32)), 1.0, 11 * DAY_MS)
    counted = table.most_taken(2)
    assert counted.rows.tolist() == [3, 4]
    assert counted.users.tolist() == pytest.approx([4, 6])
    assert counted.counts[:, 0].tolist() == pytest.approx([3, 3])
    assert NeighbourTable(DAY_MS).most_taken(5).rows.tolist() == []


def test_rows_are_told_the_largest_one_after_the_other(
    chain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 1)
    both, users = both_of(chain)
    partials = PartialCorrelations.of(table_of(both, users.tolist()).most_taken(9), 1.0)
    others, places, strengths = partials.get(np.array([2, PADDING, 0, 99]))
    assert (others.tolist(), places.tolist()) == ([1, 1], [0, 2])
    expected = partial_correlations(both, users, 1.0)
    assert strengths[0] / strengths[1] == pytest.approx(expected[2, 1] / expected[0, 1])
    partials.drop(2)
    assert partials.get(np.array([2, 0]))[1].tolist() == [1]


def test_what_is_told_has_the_measure_of_cosines(chain: np.ndarray) -> None:
    """So that the share of texts means what it does beside cosines, whatever the ridge."""
    both, users = both_of(chain)
    cosines = both / np.sqrt(np.outer(users, users))
    for ridge in (1.0, 1000.0):
        table = table_of(both, users.tolist())
        partials = PartialCorrelations.of(table.most_taken(9), ridge)
        told = np.zeros((3, 3))
        others, places, strengths = partials.get(np.arange(3))
        told[places, others] = strengths
        assert told.max(axis=1).mean() == pytest.approx(cosines.max(axis=1).mean())


def test_an_item_that_was_not_compared_is_told_by_cosines_made_smaller(chain: np.ndarray) -> None:
    both, users = both_of(chain)
    table = table_of(both, users.tolist())
    compared = PartialCorrelations.of(table.most_taken(9), 50.0)
    table.put(9, Taken(np.array([0, 1], np.int32), np.array([2, 1], np.float32)), 4.0, DAY_MS)
    others, places, strengths = compared.beside(table, np.array([1, 9, 0]), 50.0)
    assert places.tolist() == sorted(places.tolist())
    own = strengths[places == 1]
    assert others[places == 1].tolist() == [0, 1]
    made_smaller = np.array([2.0, 1]) / np.sqrt((4 + 50) * (users[[0, 1]] + 50))
    factor = own / made_smaller
    assert factor == pytest.approx(compared._measure, rel=1e-4)
    assert factor[0] > 1
    rest = compared.get(np.array([1, 0]))
    assert strengths[places != 1].tolist() == rest[2].tolist()
    nobody = PartialCorrelations.of_none().beside(table, np.array([9]), 50.0)
    assert nobody[2] == pytest.approx(made_smaller, rel=1e-4)
