"""TrainedSentiment: what it learns from reviews, and that its folder is what it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from review_texts import reviews
from safetensors.numpy import save
from word_vectors import word_vectors

from models.evaluation import intervals
from models.model_folder import MANIFEST, write_folder
from models.sentiment import polarity
from models.trained_sentiment import (
    KIND,
    SentimentParts,
    TrainedSentiment,
    load_sentiment,
    save_sentiment,
)
from models.training import sentiment as training
from models.training.sentiment import TooLittle, Validation, train_sentiment
from models.weights import ModelError

DIM = 32
Trained = tuple[SentimentParts, Validation]


@pytest.fixture(scope="module", autouse=True)
def _small_enough() -> Iterator[None]:
    """Fewer resamples and buckets: what is looked at does not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "N_RESAMPLES", 50)
        patch.setattr(training, "N_BUCKETS", 1 << 12)
        yield


def trained_on(texts: list[str], content: list[bool]) -> Trained:
    return train_sentiment(texts, word_vectors(texts, DIM), np.array(content))


@pytest.fixture(scope="module")
def trained() -> Trained:
    return trained_on(*reviews(1200))


@pytest.fixture(scope="module")
def model(trained: Trained) -> TrainedSentiment:
    return TrainedSentiment(trained[0], "sentiment-test", "hash-32")


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    save_sentiment(tmp_path / "model", trained[0], "hash-32", {"data": {"n_reviews": 1200}})
    return tmp_path / "model"


def said(model: TrainedSentiment, texts: list[str]) -> NDArray[np.float64]:
    return model.content(texts, word_vectors(texts, DIM))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param("works very well, worth it", "a waste of money, not worth it", id="english"),
        pytest.param("衣服很好，值得购买", "衣服很差，不推荐", id="chinese"),
    ],
)
def test_both_languages_are_told_apart(model: TrainedSentiment, good: str, bad: str) -> None:
    of_good, of_bad = said(model, [good, bad])
    assert polarity(of_good) == "positive"
    assert polarity(of_bad) == "negative"


def test_strangers_probabilities_are_meant(model: TrainedSentiment) -> None:
    texts, content = reviews(seed=7)
    probabilities = said(model, texts)
    assert ((probabilities > 0.5) == content).mean() > 0.88
    sure = probabilities > 0.8
    # One in twelve says the opposite of what its writer thinks.
    assert np.mean(np.array(content)[sure]) == pytest.approx(probabilities[sure].mean(), abs=0.06)


def test_the_validation_is_of_reviews_held_out(trained: Trained) -> None:
    assert trained[1].n_reviews == 150
    # What is wrong in the texts cannot be learnt, only learnt by heart.
    assert 0.8 < trained[1].figures["accuracy"].value < 0.99
    assert {"accuracy", "precision", "recall", "f1", "auc", "brier"} <= set(trained[1].figures)


def test_it_is_the_same_model_each_time(trained: Trained) -> None:
    again, validation = trained_on(*reviews(1200))
    assert validation == trained[1]
    np.testing.assert_array_equal(again.weights, trained[0].weights)
    assert (again.slope, again.intercept) == (trained[0].slope, trained[0].intercept)


def test_a_text_is_read_alike_alone_and_in_company(model: TrainedSentiment) -> None:
    texts = reviews(20)[0]
    alone = [said(model, [text])[0] for text in texts]
    np.testing.assert_allclose(said(model, texts), alone, rtol=1e-12)


def test_nothing_to_read_is_no_error(model: TrainedSentiment) -> None:
    assert said(model, []).shape == (0,)
    assert 0 < said(model, [" "])[0] < 1


def test_without_a_telling_word_the_vector_decides(trained: Trained) -> None:
    parts = replace(trained[0], of_vector=np.eye(DIM, dtype=np.float32)[0] * 5)
    model = TrainedSentiment(parts, "m", "e")
    towards, away = model.content(["x", "x"], np.eye(DIM, dtype=np.float32)[[0, 0]] * [[1], [-1]])
    assert towards > away


@pytest.mark.parametrize("kind", [True, False])
def test_reviews_of_one_kind_teach_nothing(kind: bool) -> None:
    texts, content = reviews()
    few = [text for text, is_so in zip(texts, content, strict=True) if is_so == kind][:49]
    many = [text for text, is_so in zip(texts, content, strict=True) if is_so != kind]
    with pytest.raises(TooLittle, match=r"expected 50 reviews .* got 49"):
        trained_on(few + many, [kind] * len(few) + [not kind] * len(many))


# --- the folder ----------------------------------------------------------------------------------


def test_a_folder_says_what_the_model_said(model: TrainedSentiment, folder: Path) -> None:
    found = load_sentiment(folder)
    texts = reviews(50, seed=3)[0]
    np.testing.assert_array_equal(said(found, texts), said(model, texts))
    assert found.name.startswith("sentiment-")
    assert found.encoder_id == "hash-32"


def test_a_damaged_file_is_refused(folder: Path) -> None:
    path = folder / "linear.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"linear\.safetensors: damaged"):
        load_sentiment(folder)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", "churn", {}, {"a": b"{}"})
    with pytest.raises(ModelError, match="expected a model of kind sentiment"):
        load_sentiment(tmp_path / "m")


def rewritten(folder: Path, arrays: dict[str, object], numbers: object, **facts: object) -> Path:
    """Return another folder, its digests made to fit."""
    files = {
        "linear.safetensors": save(arrays),  # type: ignore[arg-type]
        "calibration.json": json.dumps(numbers).encode(),
    }
    write_folder(folder.parent / "other", KIND, {"encoder": "e", **facts}, files)
    return folder.parent / "other"


ONES = np.ones(4, np.float32)
ARRAYS: dict[str, object] = {"idf": ONES, "weights": ONES, "of_vector": ONES[:3]}
NUMBERS = {"slope": 1.0, "intercept": 0.0}


@pytest.mark.parametrize(
    ("arrays", "numbers"),
    [
        pytest.param({"idf": ONES}, NUMBERS, id="an-array-is-missing"),
        pytest.param({**ARRAYS, "idf": ONES[:3], "weights": ONES[:3]}, NUMBERS, id="3-buckets"),
        pytest.param({**ARRAYS, "weights": np.ones(8, np.float32)}, NUMBERS, id="more-weights"),
        pytest.param({**ARRAYS, "of_vector": ONES * np.nan}, NUMBERS, id="nan"),
        pytest.param({**ARRAYS, "idf": np.ones(4)}, NUMBERS, id="float64"),
        pytest.param({**ARRAYS, "idf": np.ones((2, 2), np.float32)}, NUMBERS, id="a-matrix"),
        pytest.param(ARRAYS, {"slope": 1.0}, id="no-intercept"),
        pytest.param(ARRAYS, {"slope": -1.0, "intercept": 0.0}, id="upside-down"),
        pytest.param(ARRAYS, {"slope": "x", "intercept": 0.0}, id="no-number"),
        pytest.param(ARRAYS, [], id="no-object"),
    ],
)
def test_what_is_no_model_is_refused(
    folder: Path, arrays: dict[str, object], numbers: object
) -> None:
    with pytest.raises(ModelError, match="not a sentiment model's files"):
        load_sentiment(rewritten(folder, arrays, numbers))


def test_a_folder_that_names_no_encoder_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="does not name the encoder"):
        load_sentiment(rewritten(folder, ARRAYS, NUMBERS, encoder=None))


def without(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        del manifest["files"][file]
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return change


@pytest.mark.parametrize("file", ["linear.safetensors", "calibration.json"])
def test_a_folder_that_lacks_a_file_is_refused(folder: Path, file: str) -> None:
    without(file)(folder)
    with pytest.raises(ModelError, match=f"lacks {file}"):
        load_sentiment(folder)
