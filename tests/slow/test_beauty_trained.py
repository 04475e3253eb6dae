"""`prefstream evaluate beauty_trained` from end to end, on a shop of the same files but small."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from stream.evaluate.beauty_trained import evaluate
from stream.evaluate.datasets import load_amazon_beauty
from stream.evaluate.report import Evaluated
from stream.settings import load_settings

pytestmark = pytest.mark.slow

N_ITEMS, N_USERS = 50, 200


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Shoppers who go through the items in one order that their titles do not tell."""
    folder = tmp_path_factory.mktemp("data") / "amazon_beauty"
    folder.mkdir()
    rng = np.random.default_rng(0)
    order = rng.permutation(N_ITEMS) + 1
    lines = []
    for user in range(N_USERS):
        at, length = rng.integers(N_ITEMS), rng.integers(5, 9)
        items = [order[(at + step) % N_ITEMS] for step in range(length)]
        lines.append(" ".join(map(str, [user, *items])))
    asins = {str(number): f"B{number:03}" for number in range(1, N_ITEMS + 1)}
    written = {
        "sequential.txt.gz": "\n".join(lines),
        "datamaps.json.gz": json.dumps({"id2item": asins}),
        "item_id_to_int.json.gz": json.dumps({a: int(n) for n, a in asins.items()}),
        "products_lookup.csv.gz": "global_product_id,name\n"
        + "\n".join(f"{n},Soap number {n}" for n in range(1, N_ITEMS + 1)),
    }
    for name, text in written.items():
        with gzip.open(folder / name, "wt", encoding="utf-8") as file:
            file.write(text)
    return folder.parent


def test_it_prints_all_targets_and_the_rare_ones(data: Path) -> None:
    assert load_amazon_beauty(data).n_items == N_ITEMS
    steps: list[str] = []
    every, rare = evaluate(data, load_settings(), steps.append)
    assert isinstance(every, Evaluated)
    assert [every.name, rare.name] == ["beauty", "beauty_rare"]
    assert [row.model for row in every.rows] == [
        "live path, sequence model and ranker",
        "live path with the sequence model",
        "live path, ranker alone",
        "live path, no training",
        "the sequence model alone",
        "the same network of ids alone",
    ]
    assert all(0 <= row.estimates["recall_at_10"].value <= 1 for row in every.rows)
    assert "were chosen on the item before the last of 200 users" in every.note
    assert any("epoch 1" in step for step in steps)
