"""``prefstream models`` and ``train ... --publish``, as a person types them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from models.churn import TERMS
from models.model_folder import write_folder
from models.trained_sentiment import SentimentParts, save_sentiment
from models.versions import chosen
from models.weights import encoder_id, resolve
from stream.cli import run

DEFAULT = resolve("all-MiniLM-L6-v2")


def save(folder: Path, slope: float, encoder: str, dim: int = 384) -> None:
    ones = np.ones(8, np.float32)
    parts = SentimentParts(ones, ones, np.ones(dim, np.float32), slope, 0.0)
    facts = {"data": {"n_reviews": 7, "last_ms": 1_764_000_000_000}}
    save_sentiment(folder, parts, encoder, facts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder, running = tmp_path / "my-reviews", encoder_id(DEFAULT)
    save(folder / "1", 1.0, running)
    save(folder / "2", 2.0, running)
    save(folder / "other-encoder", 3.0, "bert-2")
    save(folder / "damaged", 4.0, running)
    (folder / "damaged/calibration.json").write_text("{}")
    return folder


def test_a_version_is_put_in_use_and_taken_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("1", "2"):
        assert run(["models", "switch", str(folder), version]) == 0
    assert run(["models", "list", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder}: 1 is in use; workers that run take it by themselves"
    listed = [line.split("\t") for line in lines[2:]]
    assert [cells[0] for cells in listed] == ["1", "2", "damaged", "other-encoder"]
    assert listed[0][1].startswith("sentiment-")
    assert [cells[2] for cells in listed[:2]] == ["7 reviews, until 2025-11-24"] * 2
    assert [cells[3:] for cells in listed] == [["previous"], ["in use"], [], []]
    assert run(["models", "rollback", str(folder)]) == 0
    assert chosen(folder) == folder / "1"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3", "holds no version '3'"),
        ("damaged", "calibration.json: damaged: its sha256 is not the manifest's"),
        ("other-encoder", "reads vectors of encoder bert-2"),
    ],
)
def test_what_a_worker_would_refuse_is_not_put_in_use(
    folder: Path, capsys: pytest.CaptureFixture[str], version: str, reason: str
) -> None:
    assert run(["models", "switch", str(folder), "1"]) == 0
    assert run(["models", "switch", str(folder), version]) == 1
    assert reason in capsys.readouterr().err
    assert chosen(folder) == folder / "1"


def test_verify_prints_the_manifest_and_says_which_encoder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["models", "switch", str(folder), "2"])
    assert run(["models", "verify", str(folder)]) == 0
    said = capsys.readouterr().out
    assert '"n_reviews": 7' in said
    assert f"loaded and tried with the encoder {encoder_id(DEFAULT)}" in said
    assert run(["models", "verify", str(folder / "other-encoder")]) == 1
    assert "reads vectors of encoder bert-2" in capsys.readouterr().err
    assert run(["models", "verify", str(folder.parent)]) == 1
    assert "expected a trained model's folder" in capsys.readouterr().err


def test_other_kinds_are_told_for_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "soup", "soup", {}, {"a.json": b"{}"})
    assert run(["models", "verify", str(tmp_path / "soup")]) == 1
    assert "a model of kind 'soup', which no worker takes" in capsys.readouterr().err
    features = {"features": [term.name for term in TERMS]}
    write_folder(tmp_path / "churn", "churn", features, {"additive.json": b"{}"})
    assert run(["models", "verify", str(tmp_path / "churn")]) == 1
    assert "lacks trees.txt" in capsys.readouterr().err


def test_training_publishes_a_version_and_puts_it_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from churn_shops import END_MS, simulated_acts

    from models.evaluation import intervals
    from stream.training import churn

    monkeypatch.setattr(intervals, "N_RESAMPLES", 20)
    acts = simulated_acts()
    assert acts[-1].event_time_ms < END_MS
    monkeypatch.setattr(churn, "read_acts", lambda _: acts)
    log = tmp_path / "log.jsonl"
    log.write_text("")
    out = tmp_path / "my-churn"
    command = ["train", "churn", str(log), "--format", "jsonl", "--out", str(out)]
    assert run([*command, "--publish"]) == 0
    said = capsys.readouterr().out
    found = re.search(r"(churn-\w+) written to (\S+), and in use", said)
    assert found
    assert Path(found[2]) == chosen(out)
    assert re.fullmatch(r"\d{8}T\d{6}Z", chosen(out).name)
    assert run(["models", "verify", str(out)]) == 0
    assert "any encoder will do" in capsys.readouterr().out
    # A folder that is a model itself is left as it is.
    assert run([*command[:-1], str(chosen(out)), "--publish"]) == 1
    assert "is a model itself" in capsys.readouterr().err
