"""NeighbourTable: lines of a table, made wider, filled anew and given to other items."""

from __future__ import annotations

import numpy as np
import pytest

from models import native
from models.neighbours import NeighbourTable, Taken

DAY_MS = 86_400_000


def taken(*rows: int) -> Taken:
    return Taken(np.array(rows, np.int32), np.ones(len(rows), np.float32))


def found(table: NeighbourTable, *rows: int) -> list[tuple[int, int]]:
    """Return the place asked for and the neighbour, of each that is told."""
    others, places, strengths = table.get(np.array(rows, np.int64))
    assert (strengths > 0).all()
    return list(zip(places.tolist(), others.tolist(), strict=True))


def filled() -> NeighbourTable:
    table = NeighbourTable(180 * DAY_MS)
    for row in range(6):
        table.put(row, taken(), 1.0, DAY_MS)
    table.put(0, taken(1, 2, 3), 1.0, DAY_MS)
    return table


def test_fewer_neighbours_leave_none_of_those_before() -> None:
    table = filled()
    table.put(0, taken(4), 1.0, DAY_MS)
    assert found(table, 0) == [(0, 4)]
    assert next((row, t.rows.tolist()) for row, t, *_ in table.rows()) == (0, [4])


def test_more_than_anyone_had_widen_the_table_and_lose_nothing() -> None:
    table = filled()
    table.put(1, taken(0, 2, 3, 4, 5), 1.0, DAY_MS)
    assert found(table, 1, 0) == [(0, n) for n in (0, 2, 3, 4, 5)] + [(1, n) for n in (1, 2, 3)]


def test_a_dropped_item_has_none_and_its_line_is_anothers() -> None:
    table = filled()
    table.drop(0)
    assert found(table, 0, 1) == []
    table.put(7, taken(2), 1.0, DAY_MS)
    assert found(table, 7, -1, 99, 0) == [(0, 2)]


def test_more_items_than_lines_make_it_longer() -> None:
    table = filled()
    for row in range(6, 300):
        table.put(row, taken(row - 1), 1.0, DAY_MS)
    assert found(table, 299, 64, 0) == [(0, 298), (1, 63), (2, 1), (2, 2), (2, 3)]


@pytest.mark.skipif(not native.is_on(), reason="native code was not built")
def test_native_code_finds_the_neighbours_that_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, table = np.random.default_rng(0), NeighbourTable(180 * DAY_MS)
    for row in range(40):
        others = rng.choice(60, rng.integers(0, 9), replace=False).astype(np.int32)
        counts = rng.choice([0.0, 1e-30, 1.0, 3.0], len(others)).astype(np.float32)
        n_users = float(rng.choice([0.0, 1.0, 20.0, 1e30]))
        table.put(row, Taken(others, counts), n_users, int(rng.integers(1, 900)) * DAY_MS)
    rows = rng.integers(-1, 70, 100)
    natively = table.get(rows)
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    others, places, strengths = table.get(rows)
    assert len(others)
    assert natively[0].tolist() == others.tolist()
    assert natively[1].tolist() == places.tolist()
    assert natively[2] == pytest.approx(strengths)
