"""`prefstream evaluate sentiment`, on reviews of an invented shop and without a model's weights."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from fakes import HashEncoder
from review_texts import reviews

from models.evaluation import intervals
from models.training import sentiment as training
from stream.evaluate import sentiment
from stream.evaluate.datasets import DataMissing
from stream.evaluate.names import NAMES
from stream.evaluate.report import Evaluated
from stream.settings import load_settings


def put(folder: Path, name: str, rows: list[tuple[object, ...]]) -> None:
    folder.mkdir()
    table = io.StringIO()
    csv.writer(table).writerows(rows)
    (folder / name).write_bytes(gzip.compress(table.getvalue().encode()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    found = list(zip(*reviews(1500), strict=True))
    put(
        tmp_path / "online_shopping_10_cats",
        "online_shopping_10_cats.csv.gz",
        [("cat", "label", "review"), *(("x", int(content), text) for text, content in found)],
    )
    put(
        tmp_path / "womens_clothing_reviews",
        "reviews.csv.gz",
        [
            ("", "Title", "Review Text", "Rating"),
            *((0, "", text, 5 if content else 1) for text, content in found),
            (0, "", "so so", 3),
        ],
    )
    return tmp_path


def evaluated(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Evaluated]:
    monkeypatch.setattr(intervals, "N_RESAMPLES", 20)
    monkeypatch.setattr(training, "N_BUCKETS", 1 << 12)
    return list(
        sentiment.evaluate(
            data,
            load_settings(),
            lambda _: None,
            encode=lambda texts, _settings, side="passage": HashEncoder().encode(texts, side),
        )
    )


def test_each_language_has_a_table_with_baselines_and_intervals(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "sentiment" in NAMES
    chinese, english = evaluated(data, monkeypatch)
    assert [chinese.name, english.name] == ["sentiment_zh", "sentiment_en"]
    for one in (chinese, english):
        told = one.to_json()
        assert {"accuracy", "precision", "recall", "f1", "auc", "brier"} <= set(told)
        low, high = told["intervals"]["accuracy"]
        assert 0.8 < low <= told["accuracy"] <= high < 1
        assert {"TF-IDF of words, linear", "linear probe on the encoder"} < set(told["baselines"])
        # A tenth is asked about, and what says neither is no review of theirs.
        assert "150 reviews, after learning from 1,350" in one.note


def test_a_folder_without_the_reviews_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="online_shopping_10_cats"):
        next(sentiment.evaluate(tmp_path, load_settings(), lambda _: None))
