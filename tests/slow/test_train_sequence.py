"""`prefstream train sequence` with a real encoder, from a log to what a worker can be given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import NOW_MS

from models.weights import encoder_id, resolve
from stream.cli import run
from stream.settings import load_settings
from stream.tiers.preference import user_model

pytestmark = pytest.mark.slow

THINGS = ("boots", "scarf", "tea", "lamp", "chair", "pen", "cup", "rug", "soap", "clock")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """Ten things; everyone goes on from one to the next, some way."""
    lines: list[dict[str, object]] = [
        {"topic": "items", "value": {"item_id": t, "title": f"A {t}", "updated_ms": NOW_MS}}
        for t in THINGS
    ]
    for user in range(30):
        for step in range(3 + user % 3):
            act = {
                "event_id": f"{user}-{step}",
                "user_id": f"u{user}",
                "item_id": THINGS[(user + step) % len(THINGS)],
                "type": "purchase",
                "event_time_ms": NOW_MS + step,
            }
            lines.append({"topic": "clickstream", "value": act})
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_command_writes_a_folder_that_the_workers_can_be_given(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    command = ["train", "sequence", str(log_file), "--format", "jsonl", "--out", str(out)]
    assert run([*command, "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    settings = load_settings(user_model=str(out))
    model = user_model(settings, encoder_id(resolve(settings.encoder)), 384)
    assert model is not None
    assert "epoch 1 loss" in said
    assert "asked about the newest items of 30 shoppers; 1 epochs on everything" in said
    assert f"{model.name} written to {out}" in said
    assert run([*command, "--epochs", "1"]) == 1
    assert "something already" in capsys.readouterr().err


def test_a_log_without_a_catalogue_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    assert run(["train", "sequence", str(path), "--format", "jsonl", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
