"""From a log to a user model's folder, and from the folder to a worker's ranking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, interaction, item, review, search
from fakes import HashEncoder

from models.items import ItemFacts
from models.model_folder import MANIFEST
from models.sequence_model import save_sequence
from models.training.sequence import Epoch, Recipe, TooLittle
from models.weights import ModelError
from stream.evaluate.shop import LiveShop
from stream.formats import Record
from stream.settings import DEFAULT_WEIGHTS, load_settings
from stream.tiers.preference import user_model
from stream.training.sequence import Made, read_log, train_into

WORDS = ("boots", "scarf", "tea", "lamp", "chair", "pen", "cup", "rug")


def record(topic: str, event) -> Record:
    key = event.item_id if topic == "items" else event.user_id
    return Record(topic, key.encode(), msgspec.json.encode(event), NOW_MS)


def act(item_id: str, at: int, **fields) -> Record:
    return record("clickstream", interaction(item_id=item_id, event_time_ms=NOW_MS + at, **fields))


def catalogue(*item_ids: str) -> list[Record]:
    return [record("items", item(item_id=item_id, title=f"A {item_id}")) for item_id in item_ids]


def taken(*records: Record, weights=DEFAULT_WEIGHTS) -> list[str]:
    log = read_log([*catalogue("a", "b", "c", "d"), *records], weights)
    return [log.item_ids[number] for number in log.sequences[0]]


def test_a_sequence_is_what_was_taken_in_order_each_once() -> None:
    assert taken(act("b", 2), act("a", 1), act("b", 3), act("a", 4), act("c", 5)) == ["a", "b", "c"]


def test_only_acts_that_speak_for_an_item_make_a_taker() -> None:
    others = [
        act("a", 1, type="impression"),
        act("b", 2, type="dislike"),
        act("b", 3, type="remove_from_cart"),
        record("reviews", review(item_id="c", rating=1.0, event_time_ms=NOW_MS + 4)),
    ]
    praise = record("reviews", review(item_id="c", rating=5.0, event_time_ms=NOW_MS + 6))
    unrated = record("reviews", review(item_id="b", rating=None, event_time_ms=NOW_MS + 7))
    clicked = record("searches", search(clicked_item_ids=["a"], event_time_ms=NOW_MS + 8))
    assert taken(*others, act("d", 5), praise, unrated, clicked) == ["d", "c", "b", "a"]
    assert taken(
        act("a", 1, type="view"), act("b", 2), weights={**DEFAULT_WEIGHTS, "view": 0.0}
    ) == ["b"]


def test_what_cannot_be_learnt_from_is_left_out() -> None:
    bad = Record("clickstream", b"u1", b"{}", NOW_MS)
    gone = Record("clickstream", b"u1", None, NOW_MS)
    other_topic = Record("recommendations", b"u1", b"{}", NOW_MS)
    assert taken(bad, gone, other_topic, act("nobody knows it", 1), act("a", 2)) == ["a"]


def test_the_newest_record_of_an_item_counts() -> None:
    renamed = record("items", item(item_id="a", title="Blue kettle", updated_ms=NOW_MS + 5))
    log = read_log([*catalogue("a"), renamed, act("a", 1)], DEFAULT_WEIGHTS)
    assert log.item_ids == ["a"]
    assert "Blue kettle" in log.texts[0]


def test_a_log_without_items_is_too_little() -> None:
    with pytest.raises(TooLittle, match="expected items, and acts on them"):
        read_log([act("a", 1)], DEFAULT_WEIGHTS)


def shop_log() -> list[Record]:
    """Shoppers who go through a shop of 24 things in one order, each a part of it."""
    rng = np.random.default_rng(4)
    item_ids = [f"{word}-{n}" for n in range(3) for word in WORDS]
    order = rng.permutation(item_ids).tolist()
    records = catalogue(*item_ids)
    for user in range(60):
        start, length = int(rng.integers(len(order))), int(rng.integers(3, 7))
        for step in range(length):
            item_id = order[(start + step) % len(order)]
            records.append(act(item_id, step * 1000, user_id=f"u{user}", type="purchase"))
    return records


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Made]:
    encoder, out = HashEncoder(), tmp_path_factory.mktemp("trained") / "model"
    recipe, told = Recipe(dim=8, layers=1, epochs=2, batch=16, length=6), list[Epoch]()
    made = train_into(
        out,
        shop_log(),
        load_settings(),
        recipe,
        encoder.encode,
        encoder.encoder_id,
        told.append,
    )
    assert [epoch.number for epoch in told] == [1, 2]
    assert made.learnt.n_asked == 60
    return out, made


@pytest.fixture
def folder(made: tuple[Path, Made]) -> Path:
    return made[0]


def test_the_manifest_says_what_it_was_learnt_from_and_how_good_it_was(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["kind"] == "sequence"
    assert manifest["name"].startswith("sequence-")
    assert manifest["encoder"] == "hash-32"
    assert manifest["data"]["n_users"] == 60
    assert manifest["data"]["n_items"] == 24
    assert manifest["data"]["first_ms"] == NOW_MS
    assert manifest["recipe"]["dim"] == 8
    assert set(manifest["validation"]) == {
        *("n_users", "epoch", "weight", "mixed", "alone", "hybrid")
    }
    assert len(manifest["validation"]["mixed"]["ndcg_at_10"]) == 3


def test_a_worker_takes_the_folder_if_it_is_of_its_encoder(folder: Path) -> None:
    settings = load_settings(user_model=str(folder))
    model = user_model(settings, "hash-32", 32)
    assert model is not None
    assert model.name == json.loads((folder / MANIFEST).read_text())["name"]
    with pytest.raises(ModelError, match="encoder hash-32, and the settings say hash-64"):
        user_model(settings, "hash-64", 64)
    assert user_model(load_settings(), "hash-32", 32) is None


def test_the_live_path_ranks_with_it(made: tuple[Path, Made], tmp_path: Path) -> None:
    encoder = HashEncoder()
    # In so plain a shop the hybrid needs no help: let the model be heard.
    save_sequence(tmp_path / "loud", replace(made[1].learnt.parts, weight=9.0), {})
    settings = load_settings(user_model=str(tmp_path / "loud"))
    model = user_model(settings, encoder.encoder_id, encoder.dim)
    log = read_log(shop_log(), DEFAULT_WEIGHTS)
    facts = [msgspec.json.decode(r.value) for r in shop_log() if r.topic == "items"]
    shop = LiveShop(
        settings,
        [ItemFacts(fact["item_id"], fact["title"], NOW_MS) for fact in facts],
        encoder.encode(log.texts),
        model,
    )
    shop.learn([interaction(item_id=log.item_ids[log.sequences[0][0]], event_time_ms=NOW_MS)])
    [shown] = shop.recommend(["u1"], 5, NOW_MS + 1)
    shop.use(None)
    [without] = shop.recommend(["u1"], 5, NOW_MS + 1)
    assert len(shown) == len(without) == 5
    assert shown != without
