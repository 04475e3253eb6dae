"""Evidence: how much each part of a history says, and what takes a step."""

from __future__ import annotations

import pytest

from models.evidence import evidence_of
from models.profile import HistoryItem, Profile

DECAY = 0.5


def told(*acts: tuple[str, float, int]) -> dict[str, float]:
    """Return the coefficients, times the sum of weights, by item of (item, weight, time)."""
    items = tuple(HistoryItem(item_id, weight, at_ms) for item_id, weight, at_ms in acts)
    profile = Profile(items, (), None, 0.0, None, 0.0, frozenset())
    rows = {item.item_id: row for row, item in enumerate(items)}
    evidence = evidence_of(profile, [rows[item.item_id] for item in items], DECAY)
    total = sum(abs(weight) for weight in {name: w for name, w, _ in acts}.values())
    values = (evidence.coefficients * total).tolist()
    return dict(zip(evidence.labels, values, strict=True))


def test_every_step_back_halves_what_an_act_says() -> None:
    assert told(("a", 1, 10), ("b", 1, 20), ("c", 1, 30)) == pytest.approx(
        {"a": 0.25, "b": 0.5, "c": 1}
    )


def test_the_lines_of_an_order_take_one_step_together() -> None:
    """Else of a large basket the last few lines alone would count, in the order of a file."""
    order = [(name, 1.0, 20) for name in "bcd"]
    assert told(("a", 1, 10), *order, ("e", 1, 30)) == pytest.approx(
        {"a": 0.25, "b": 0.5, "c": 0.5, "d": 0.5, "e": 1}
    )


def test_what_speaks_against_an_item_ages_nothing() -> None:
    assert told(("a", 1, 10), ("b", -1, 20), ("c", 1, 30)) == pytest.approx(
        {"a": 0.5, "b": -0.5, "c": 1}
    )
    # In one moment with something that speaks for an item it is no step of its own either.
    assert told(("a", 1, 10), ("b", -1, 20), ("c", 1, 20)) == pytest.approx(
        {"a": 0.5, "b": -1, "c": 1}
    )
