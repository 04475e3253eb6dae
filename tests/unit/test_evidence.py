"""Evidence: how much each part of a history says, and what takes a step."""

from __future__ import annotations

import numpy as np
import pytest

from models import native
from models.evidence import evidence_of, evidences_of
from models.item_index import PADDING
from models.profile import HistoryItem, HistoryText, Profile

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


@pytest.mark.skipif(not native.is_on(), reason="native code was not built")
def test_native_code_gathers_what_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of items told of twice and unknown ones, of one moment, and of what says next to nothing."""
    rng, weights, profiles = np.random.default_rng(0), [1.0, 0.3, 0.0, -2.0, 1e-6], []
    for _ in range(200):
        n_items, n_texts = rng.integers(0, 9), rng.integers(0, 4)
        items = [
            HistoryItem(f"i{rng.integers(8)}", rng.choice(weights), int(rng.integers(5)))
            for _ in range(n_items)
        ]
        texts = [
            HistoryText(
                rng.choice(["search", "interest"]),
                str(number),
                np.full(2, number, np.float32),
                rng.choice(weights),
                int(rng.integers(5)),
            )
            for number in range(n_texts)
        ]
        profiles.append(Profile(tuple(items), tuple(texts), None, 0, None, 0, frozenset()))
    names = [item.item_id for profile in profiles for item in profile.items]
    rows = [PADDING if name == "i0" else int(name[1:]) for name in names]
    natively = evidences_of(profiles, rows, DECAY)
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    for mine, theirs in zip(natively, evidences_of(profiles, rows, DECAY), strict=True):
        assert (mine.kinds, mine.labels) == (theirs.kinds, theirs.labels)
        assert [text.tolist() for text in mine.texts] == [text.tolist() for text in theirs.texts]
        assert mine.rows.tolist() == theirs.rows.tolist()
        assert mine.coefficients == pytest.approx(theirs.coefficients, rel=1e-6)
        assert mine.reach == pytest.approx(theirs.reach)
