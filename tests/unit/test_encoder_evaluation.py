"""What fine-tuning gains on Amazon Beauty, on a shop of a few items in its format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from encoder_shop import N_THEMES, PER_THEME, titles
from failing_device import small_bert

from models.training.examples import Example
from stream.evaluate.datasets import Sequences
from stream.evaluate.encoder import beauty_behaviour, evaluate
from stream.settings import load_settings

# torch takes seconds to import.
pytestmark = pytest.mark.slow


def sequences(n_users: int) -> list[list[int]]:
    """Shoppers who each take all but one item of a theme."""
    rng = np.random.default_rng(0)
    return [
        (rng.permutation(PER_THEME)[:-1] * N_THEMES + user % N_THEMES).tolist()
        for user in range(n_users)
    ]


def as_files(data: Path, n_users: int) -> None:
    folder = data / "amazon_beauty"
    folder.mkdir()
    numbered = list(enumerate(titles(), 1))
    lines = [
        " ".join(map(str, [user, *(item + 1 for item in taken)]))
        for user, taken in enumerate(sequences(n_users), 1)
    ]
    names = "\n".join(["global_product_id,name", *(f"{n},{title}" for n, title in numbered)])
    files = {
        "sequential.txt.gz": "\n".join(lines),
        "datamaps.json.gz": json.dumps({"id2item": {str(n): f"B{n}" for n, _ in numbered}}),
        "item_id_to_int.json.gz": json.dumps({f"B{n}": n for n, _ in numbered}),
        "products_lookup.csv.gz": names,
    }
    for name, content in files.items():
        with gzip.open(folder / name, "wt") as file:
            file.write(content)


def test_the_last_two_of_everyone_are_not_learnt_from() -> None:
    users = [np.array([0, 1, 2, 3]), np.array([3, 2])]
    behaviour = beauty_behaviour(Sequences(users, ["a", "b", "a", ""]), 0.5)
    # Item 2 has the title of item 0.
    assert behaviour.texts == ["a", "b", "?"]
    assert [e for group in behaviour.groups for e in group] == [Example((0,), (1.0,), 1)]
    assert behaviour.held_out.examples == []
    other = beauty_behaviour(Sequences(users, ["a", "b", "c", "d"]), 0.5)
    assert other.held_out.examples == [Example((0, 1), (0.5, 1.0), 2)]


def test_titles_and_the_hybrid_are_told_before_and_after(tmp_path: Path) -> None:
    as_files(tmp_path, 60)
    settings = load_settings(encoder=str(small_bert(tmp_path / "small")), encoder_device="cpu")
    steps: list[str] = []
    [found] = evaluate(tmp_path, settings, steps.append, quick=True)
    assert found.name == "beauty_encoder"
    assert {row.model for row in found.rows} == {
        f"{part}, {model}" for part in ("titles", "hybrid") for model in ("as it is", "projection")
    }
    reached = {row.model: row.estimates["ndcg_at_10"].value for row in found.rows}
    assert reached["titles, projection"] > reached["titles, as it is"]
    assert "projection on titles: +" in found.note
    assert "training, projection" in steps
