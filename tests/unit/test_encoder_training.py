"""Fine-tuning an encoder: every mode learns, goes on as if never cut off, and becomes a folder."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoder_shop import Notes, shop_behaviour
from failing_device import small_bert

from models.bert_encoder import BertEncoder
from models.encoder_folder import save_encoder
from models.model_folder import MANIFEST
from models.training.encoder import Request, TooLittle, fit_encoder, work_folder
from models.training.examples import Batches
from models.training.fine_tuning import NothingLearnt, Plan, rank, share_of_rate, tune
from models.training.trainable import How, Mode, prepare
from models.weights import ModelError, ModelFiles, UnsupportedModel, read_folder

# torch and PEFT take seconds to import.
pytestmark = pytest.mark.slow

RATES: dict[Mode, float] = {
    "full": 2e-3,
    "frozen": 2e-3,
    "lora": 3e-2,
    "adalora": 3e-2,
    "ia3": 0.3,
    "projection": 1e-2,
}
MODES = [pytest.param(mode, id=mode) for mode in RATES]
BEHAVIOUR = shop_behaviour()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return read_folder(small_bert(tmp_path_factory.mktemp("models") / "small"), "small")


def request(mode: Mode, n_steps: int = 40, **plan: object) -> Request:
    every = {"texts_at_once": 24, "validate_every": 10, "temperature": 0.1, **plan}
    how = How(mode, n_steps, rank=4, precision="float32")
    return Request(how, Plan(n_steps, RATES[mode], **every), 16, device="cpu")


def weights_of(folder: Path) -> dict[str, str]:
    """The digests of what was trained, by file."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    return {name: of["sha256"] for name, of in files.items() if name.endswith("safetensors")}


# --- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_what_goes_together(mode: Mode, base: ModelFiles, tmp_path: Path) -> None:
    notes = Notes()
    made = fit_encoder(tmp_path / "new", base, BEHAVIOUR, request(mode), {}, [notes])
    assert np.mean(notes.losses[-5:]) < np.mean(notes.losses[:5])
    # Of a model at random there is little that IA3's scales could bring out.
    least = 0.0 if mode == "ia3" else 0.05
    assert made.outcome.after["ndcg_at_10"] > made.outcome.before["ndcg_at_10"] + least


@pytest.mark.parametrize("options", [{"loss": "pairwise"}, {"accumulate": 3}])
def test_the_other_loss_and_several_passes_learn_too(
    options: dict[str, object], base: ModelFiles, tmp_path: Path
) -> None:
    made = fit_encoder(
        tmp_path / "new", base, BEHAVIOUR, request("projection", **options), {"data": {"n": 1}}
    )
    assert made.outcome.after["ndcg_at_10"] > made.outcome.before["ndcg_at_10"] + 0.05


def test_hard_negatives_are_learnt_from(base: ModelFiles, tmp_path: Path) -> None:
    plain, hard = Notes(), Notes()
    for name, notes in (("plain", plain), ("hard", hard)):
        asked = replace(request("projection"), with_hard_negatives=name == "hard")
        fit_encoder(tmp_path / name, base, BEHAVIOUR, asked, {}, [notes])
    assert hard.losses != plain.losses
    assert hard.rankings[40] > hard.rankings[0] + 0.05


def test_computing_twice_to_save_memory_changes_nothing(base: ModelFiles, tmp_path: Path) -> None:
    runs = []
    for name in ("whole", "twice"):
        asked = request("full", 4)
        asked = replace(asked, how=replace(asked.how, checkpointing=name == "twice"))
        runs.append(notes := Notes())
        fit_encoder(tmp_path / name, base, BEHAVIOUR, asked, {}, [notes])
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-4)


def test_lower_layers_stay_frozen(base: ModelFiles, tmp_path: Path) -> None:
    tokens = [[2, 5, 3]]
    how = How("frozen", 10, n_frozen=1, precision="float32")
    trained = prepare(base, tokens, how, "cpu", 0).parameters
    assert not any(name.startswith(("embeddings", "encoder.layer.0.")) for name in trained)
    assert any(name.startswith("encoder.layer.1.") for name in trained)
    with pytest.raises(UnsupportedModel, match=r"fewer frozen layers than it has, 2, got 2"):
        prepare(base, tokens, replace(how, n_frozen=2), "cpu", 0)


def test_the_rate_rises_and_falls() -> None:
    shares = [share_of_rate(step, 100, 0.1) for step in range(101)]
    assert shares[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(shares) == shares[9] == shares[10] == 1
    assert shares[55] == pytest.approx(0.5)
    assert shares[100] == 0


# --- the best, and going on ----------------------------------------------------------------------


def trained(base: ModelFiles, mode: Mode, work: Path, **plan: object):
    """A model that was trained, and what came out."""
    files = BertEncoder(base, device="cpu", max_tokens=16)
    tokens = files._tokenize(BEHAVIOUR.texts, "passage")
    asked = request(mode, **plan)
    model = prepare(base, tokens, asked.how, "cpu", 0)
    batches = Batches(BEHAVIOUR.groups, len(tokens), 24)
    return model, tune(model, batches, BEHAVIOUR.held_out, asked.plan, work)


def test_it_ends_early_with_the_best_weights(base: ModelFiles, tmp_path: Path) -> None:
    # On a shop that can be learnt by heart nothing is gained after a while.
    model, outcome = trained(
        base, "projection", tmp_path, n_steps=400, validate_every=5, patience=3
    )
    assert outcome.n_steps == outcome.best_step + 15 < 400
    assert rank(model, BEHAVIOUR.held_out) == pytest.approx(outcome.after)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    mode: Mode, base: ModelFiles, tmp_path: Path
) -> None:
    asked = request(mode, 24, validate_every=6, patience=9)
    fit_encoder(tmp_path / "whole", base, BEHAVIOUR, asked, {})
    with pytest.raises(KeyboardInterrupt):
        fit_encoder(tmp_path / "cut", base, BEHAVIOUR, asked, {}, [Notes(breaks_at=15)])
    assert not (tmp_path / "cut").exists()
    notes = Notes()
    fit_encoder(tmp_path / "cut", base, BEHAVIOUR, asked, {}, [notes])
    assert len(notes.losses) == 12
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_run_does_not_go_on_with_other_options(base: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit_encoder(tmp_path / "new", base, BEHAVIOUR, request("lora"), {}, [Notes(breaks_at=15)])
    with pytest.raises(ModelError, match="begun with other data or options"):
        fit_encoder(tmp_path / "new", base, BEHAVIOUR, request("lora", seed=1), {})


def test_a_damaged_checkpoint_is_named(base: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit_encoder(
            tmp_path / "new", base, BEHAVIOUR, request("projection"), {}, [Notes(breaks_at=15)]
        )
    (work_folder(tmp_path / "new") / "checkpoint.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: damaged"):
        fit_encoder(tmp_path / "new", base, BEHAVIOUR, request("projection"), {})


def test_what_is_no_better_is_not_written(base: ModelFiles, tmp_path: Path) -> None:
    asked = request("projection", 2)
    asked = replace(asked, plan=replace(asked.plan, learning_rate=1e-12))
    with pytest.raises(NothingLearnt, match=r"after 2 steps no weights .* ndcg_at_10 0\.\d+"):
        fit_encoder(tmp_path / "new", base, BEHAVIOUR, asked, {})
    assert not (tmp_path / "new").exists()


def test_without_choices_nothing_is_begun(base: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(TooLittle, match="choices to learn from"):
        fit_encoder(tmp_path / "new", base, replace(BEHAVIOUR, groups=[]), request("full"), {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(base: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="something already"):
        fit_encoder(tmp_path, base, BEHAVIOUR, request("full"), {})


# --- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_folder_gives_the_vectors_of_the_model_in_training(
    mode: Mode, base: ModelFiles, tmp_path: Path
) -> None:
    model, _ = trained(base, mode, tmp_path / "work", n_steps=20)
    expected = model.encode(np.arange(len(BEHAVIOUR.texts)))
    plain, dense = model.merged()
    save_encoder(tmp_path / "new", plain, dense, base, {})
    served = BertEncoder(read_folder(tmp_path / "new", "new"), device="cpu", dtype="float32")
    np.testing.assert_allclose(served.encode(BEHAVIOUR.texts), expected, atol=1e-5)
    untrained = BertEncoder(base, device="cpu", dtype="float32")
    assert np.abs(served.encode(BEHAVIOUR.texts) - untrained.encode(BEHAVIOUR.texts)).max() > 1e-3


def test_a_folder_can_be_trained_further(base: ModelFiles, tmp_path: Path) -> None:
    first = fit_encoder(tmp_path / "first", base, BEHAVIOUR, request("projection", 10), {})
    files = read_folder(tmp_path / "first", "first")
    again = fit_encoder(tmp_path / "again", files, BEHAVIOUR, request("projection", 20), {})
    assert again.outcome.before == pytest.approx(first.outcome.after, abs=1e-3)
    both = BertEncoder(read_folder(tmp_path / "again", "again"), device="cpu").encode(["a b c"])
    assert both.shape == (1, base.dim)
    # The two layers have become one.
    layers = json.loads((tmp_path / "again/modules.json").read_text())
    assert [layer["type"].rpartition(".")[2] for layer in layers] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Normalize",
    ]


def test_sentence_transformers_reads_the_folder_alike(base: ModelFiles, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    fit_encoder(tmp_path / "new", base, BEHAVIOUR, request("projection", 20), {})
    theirs = library.SentenceTransformer(str(tmp_path / "new"), device="cpu")
    ours = BertEncoder(read_folder(tmp_path / "new", "new"), device="cpu", dtype="float32")
    np.testing.assert_allclose(
        theirs.encode(BEHAVIOUR.texts), ours.encode(BEHAVIOUR.texts), atol=1e-5
    )


def test_the_manifest_says_what_was_done(base: ModelFiles, tmp_path: Path) -> None:
    facts = {"data": {"first_ms": 1, "last_ms": 2}}
    made = fit_encoder(tmp_path / "new", base, BEHAVIOUR, request("lora", 20), facts)
    manifest = json.loads((tmp_path / "new" / MANIFEST).read_text())
    assert manifest["kind"] == "encoder"
    assert manifest["name"] == made.name
    assert manifest["base"].startswith("small-")
    assert manifest["data"] == facts["data"]
    assert manifest["options"]["mode"] == "lora"
    assert manifest["options"]["n_steps"] == 20
    assert manifest["validation"]["after"] == dict(made.outcome.after)
    assert math.isfinite(manifest["training"]["seconds"])
    # Of the work nothing is left but what TensorBoard shows.
    [events] = work_folder(tmp_path / "new").iterdir()
    assert events.name == "tensorboard"
    assert [path.stat().st_size > 100 for path in events.iterdir()] == [True]


def test_a_damaged_folder_is_not_served(base: ModelFiles, tmp_path: Path) -> None:
    fit_encoder(tmp_path / "new", base, BEHAVIOUR, request("projection", 20), {})
    weights = tmp_path / "new/2_Dense/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(ModelError, match=r"2_Dense/model\.safetensors: damaged"):
        BertEncoder(read_folder(tmp_path / "new", "new"), device="cpu")
