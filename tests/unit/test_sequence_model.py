"""SequenceModel: what it learns, that items it has not met work, and that its folder is checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.evaluation import baselines, intervals, ranking
from models.evaluation.splits import leave_one_out
from models.model_folder import MANIFEST, write_folder
from models.sequence_model import (
    KIND,
    SequenceModel,
    SequenceParts,
    load_sequence,
    save_sequence,
)
from models.sequence_network import SequenceNetwork, Shape
from models.training.sequence import (
    Catalogue,
    Epoch,
    Learnt,
    Mixing,
    Recipe,
    TooLittle,
    train_sequence,
)
from models.weights import ModelError

N_ITEMS, TEXT_DIM = 60, 16
ENCODER = "encoder@1"
RECIPE = Recipe(
    dim=16, layers=1, epochs=6, patience=6, batch=64, dropout=0.1, learning_rate=0.02, length=8
)


@pytest.fixture(scope="module", autouse=True)
def _narrow_enough():
    """Intervals of fewer resamples: a thousand take most of the time, and none is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "N_RESAMPLES", 20)
        yield


def catalogue() -> Catalogue:
    vectors = np.random.default_rng(1).standard_normal((N_ITEMS, TEXT_DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Catalogue([f"i{number}" for number in range(N_ITEMS)], vectors, ENCODER)


def walks(n_users: int = 300) -> list[np.ndarray]:
    """Shoppers who mostly go on from an item to the one that is next in a hidden order.

    Co-occurrence is of little use: everyone takes items all along the order.
    """
    rng = np.random.default_rng(2)
    order = rng.permutation(N_ITEMS)
    walked = []
    for _ in range(n_users):
        start, taken = rng.integers(N_ITEMS), dict[int, None]()
        for step in range(rng.integers(3, 8)):
            item = (start + step) % N_ITEMS if rng.random() < 0.9 else rng.integers(N_ITEMS)
            taken.setdefault(int(order[item]))
        walked.append(np.array([*taken], np.int64))
    return walked


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    return train_sequence(leave_one_out(walks()).histories, catalogue(), RECIPE, Mixing())


@pytest.fixture(scope="module")
def model(learnt: Learnt) -> SequenceModel:
    return SequenceModel(learnt.parts, "sequence-test")


@pytest.fixture
def folder(learnt: Learnt, tmp_path: Path) -> Path:
    save_sequence(tmp_path / "model", learnt.parts, {"data": {"n_acts": 3}})
    return tmp_path / "model"


def test_it_finds_what_comes_next_where_popularity_does_not(model: SequenceModel) -> None:
    split, shop = leave_one_out(walks()), catalogue()
    items = model.items(shop.item_ids, shop.vectors)

    def fits(histories):
        newest = [items[history[-model.history_items :]] for history in histories]
        return model.shoppers(newest) @ items.T

    found = {
        name: ranking.per_user(baselines.ranked(of_it, split.histories, 5), split.targets, (5,))
        for name, of_it in (
            ("learnt", fits),
            ("popularity", baselines.popularity(split.histories, N_ITEMS)),
        )
    }
    recall = {name: float(values["recall_at_5"].mean()) for name, values in found.items()}
    assert recall["learnt"] > 0.5
    assert recall["popularity"] < 0.25


def test_learnt_vectors_are_of_length_one_and_short(model: SequenceModel) -> None:
    shop = catalogue()
    items = model.items(shop.item_ids[:5], shop.vectors[:5])
    shoppers = model.shoppers([items[:3], items[:0], items[3:4]])
    assert items.shape == (5, model.dim)
    assert shoppers.shape == (3, model.dim)
    assert items.dtype == shoppers.dtype == np.float32
    assert np.linalg.norm(items, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(shoppers, axis=1) == pytest.approx([1, 0, 1], abs=1e-5)
    assert model.shoppers([]).shape == (0, model.dim)
    assert model.items([], shop.vectors[:0]).shape == (0, model.dim)


def test_a_shopper_is_known_alike_in_any_company(model: SequenceModel) -> None:
    shop = catalogue()
    items = model.items(shop.item_ids, shop.vectors)
    histories = [items[:1], items[2:9], items[4:6]]
    together = model.shoppers(histories)
    for history, vector in zip(histories, together, strict=True):
        assert model.shoppers([history])[0] == pytest.approx(vector, abs=1e-5)


def test_the_order_of_a_history_matters(model: SequenceModel) -> None:
    shop = catalogue()
    items = model.items(shop.item_ids, shop.vectors)
    one, other = model.shoppers([items[:5], items[4::-1]])
    assert float(one @ other) < 0.999


def test_an_item_it_has_not_met_is_known_by_its_text(model: SequenceModel, learnt: Learnt) -> None:
    shop = catalogue()
    new = model.items(["new", "newer"], shop.vectors[[3, 3]])
    text = shop.vectors[3] - learnt.parts.mean
    by_text = learnt.parts.network.text.weight.detach().numpy() @ (text / np.linalg.norm(text))
    assert new[0] == pytest.approx(by_text / np.linalg.norm(by_text), abs=1e-5)
    assert (new[0] == new[1]).all()
    assert float(new[0] @ model.items(["i3"], shop.vectors[3:4])[0]) < 0.9999


def test_vectors_of_another_dimension_are_refused(model: SequenceModel) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 16\)"):
        model.items(["i1"], np.zeros((1, 8), np.float32))


# Learning ----------------------------------------------------------------------------------------


def test_the_same_seed_learns_the_same_and_draws_from_nobody_elses() -> None:
    recipe, sequences = replace(RECIPE, epochs=2), walks(80)
    state = torch.get_rng_state()
    first = train_sequence(sequences, catalogue(), recipe, Mixing())
    assert (torch.get_rng_state() == state).all()
    again = train_sequence(sequences, catalogue(), recipe, Mixing(), lambda _: torch.manual_seed(9))
    other = train_sequence(sequences, catalogue(), replace(recipe, seed=1), Mixing())
    weights = [one.parts.network.state_dict()["leave.weight"] for one in (first, again, other)]
    assert (weights[0] == weights[1]).all()
    assert not (weights[0] == weights[2]).all()


def test_it_ends_where_more_does_no_good_and_tells_of_each_epoch() -> None:
    told: list[Epoch] = []
    recipe = replace(RECIPE, epochs=40, patience=1)
    found = train_sequence(walks(80), catalogue(), recipe, Mixing(), told.append)
    assert [epoch.number for epoch in told] == list(range(1, found.chosen.number + 2))
    assert found.chosen == max(told, key=lambda epoch: epoch.mixed.ndcg.value)
    assert found.n_asked == 80


def test_what_is_kept_aside_is_each_shoppers_newest() -> None:
    """Its validation cannot know what is told of the newest items alone."""
    sequences = walks(80)
    changed = [np.append(s[:-1], (s[-1] + 1) % N_ITEMS) for s in sequences]
    changed = [s if len(set(s.tolist())) == len(s) else sequences[n] for n, s in enumerate(changed)]
    losses: list[list[float]] = []
    for some in (sequences, changed):
        told: list[Epoch] = []
        train_sequence(some, catalogue(), replace(RECIPE, epochs=2), Mixing(), told.append)
        losses.append([epoch.loss for epoch in told])
    assert losses[0] == losses[1]


def test_items_can_be_learnt_without_their_texts() -> None:
    recipe = replace(RECIPE, by_text=False, alone=True, epochs=2)
    found = train_sequence(walks(80), catalogue(), recipe, Mixing())
    model = SequenceModel(found.parts, "ids")
    shop = catalogue()
    known, new = model.items(["i1", "new"], shop.vectors[:2])
    assert np.linalg.norm(known) == pytest.approx(1, abs=1e-5)
    assert not new.any()


def test_too_few_acts_are_refused() -> None:
    with pytest.raises(TooLittle, match="two shoppers with three items"):
        train_sequence([np.array([1, 2])] * 5, catalogue(), RECIPE, Mixing())


# The folder --------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(folder: Path, model: SequenceModel) -> None:
    again, shop = load_sequence(folder, ENCODER), catalogue()
    items = model.items(shop.item_ids, shop.vectors)
    assert (again.items(shop.item_ids, shop.vectors) == items).all()
    assert (again.shoppers([items[:4]]) == model.shoppers([items[:4]])).all()
    assert (again.weight, again.dim, again.history_items) == (
        model.weight,
        model.dim,
        model.history_items,
    )
    assert again.name.startswith("sequence-")
    assert json.loads((folder / MANIFEST).read_text())["encoder"] == ENCODER


def test_the_name_is_that_of_the_weights(learnt: Learnt, folder: Path, tmp_path: Path) -> None:
    name = load_sequence(folder, ENCODER).name
    assert save_sequence(tmp_path / "same", learnt.parts, {}) == name
    assert save_sequence(tmp_path / "other", replace(learnt.parts, weight=0.9), {}) != name


def test_a_model_of_another_encoder_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="learnt over vectors of the encoder encoder@1"):
        load_sequence(folder, "encoder@2")


def test_a_damaged_file_is_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="damaged"):
        load_sequence(folder, ENCODER)


def rewritten(folder: Path, tmp_path: Path, **files: bytes) -> Path:
    """Return a folder with other files, whose manifest says that they are right."""
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    named = {name.replace("_", "."): content for name, content in files.items()}
    write_folder(tmp_path / "rewritten", KIND, {}, {**kept, **named})
    return tmp_path / "rewritten"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dim", 10**9, "expected dim from 1 to 1024"),
        ("layers", True, "expected layers"),
        ("heads", 3, "heads can share"),
        ("n_items", 61, "ids of 61 items"),
        ("text_dim", 17, "not a sequence model"),
        ("weight", float("nan"), "expected a weight"),
        ("length", None, "expected length"),
        ("dim", 8, "not a sequence model"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    folder: Path, tmp_path: Path, field: str, value: object, said: str
) -> None:
    about = json.loads((folder / "about.json").read_bytes())
    other = rewritten(folder, tmp_path, about_json=json.dumps({**about, field: value}).encode())
    with pytest.raises(ModelError, match=said):
        load_sequence(other, ENCODER)


def test_weights_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["place.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "bad")
    bad = (tmp_path / "bad").read_bytes()
    with pytest.raises(ModelError, match="finite"):
        load_sequence(rewritten(folder, tmp_path, weights_safetensors=bad), ENCODER)


def test_the_largest_model_that_is_allowed_is_made_of_its_file_alone() -> None:
    """Nothing is allocated for what a file merely says."""
    with torch.device("meta"):
        network = SequenceNetwork(Shape(text_dim=8192, n_items=50_000_000, dim=1024))
    parts = SequenceParts(network, [], np.zeros(8192, np.float32), ENCODER, 0.1)
    assert parts.network.residual.weight.is_meta
