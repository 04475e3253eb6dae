"""From logs and tables to what sentiment is learnt from, and from that to what the tier serves."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import msgspec
import pytest
from builders import NOW_MS, review
from fakes import HashEncoder
from review_texts import reviews

from models.evaluation import intervals
from models.trained_sentiment import load_sentiment
from models.training import sentiment as training
from stream.cli import run
from stream.formats import BadSource, Record
from stream.training.sentiment import RatedReview, reviews_of_log, reviews_of_table, train_into


def record(topic: str = "reviews", **fields: object) -> Record:
    event = review(**fields)
    return Record(topic, b"u1", msgspec.json.encode(event), event.event_time_ms)


def test_of_a_log_the_stars_are_learnt_from_once() -> None:
    records = [
        record(event_id="a", text="good", title="Yes", rating=5.0),
        record(event_id="a", text="good", title="Yes", rating=5.0),
        record(event_id="b", text="bad", rating=2.0),
        record(event_id="c", text="so so", rating=3.0),
        record(event_id="d", text="no stars"),
        record(event_id="e", text="  ", rating=5.0),
        record("searches", event_id="f", text="not a review", rating=5.0),
        Record("reviews", b"u1", b"{}", NOW_MS),
        Record("reviews", b"u1", None, NOW_MS),
    ]
    # Put together as the encode tier reads it.
    assert list(reviews_of_log(records)) == [
        RatedReview("Yes. good", True),
        RatedReview("bad", False),
    ]


def table(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param(
            [("cat", "label", "review"), ("书", "1", "很好"), ("书", "0", "很差")],
            [RatedReview("很好", True), RatedReview("很差", False)],
            id="labels",
        ),
        pytest.param(
            [("", "Title", "Review Text", "Rating"), ("0", "Hm", "bad\nbroken", "1")],
            [RatedReview("Hm. bad\nbroken", False)],
            id="stars-and-title",
        ),
        pytest.param(
            [
                ("text", "stars"),
                *(("neither", stars) for stars in ("3", "", "x", "9", "nan")),
                ("cut off",),
                ("good", "4.5"),
            ],
            [RatedReview("good", True)],
            id="what-says-nothing-is-left-out",
        ),
    ],
)
def test_a_table_is_read_by_the_names_of_its_columns(
    tmp_path: Path, rows: list[tuple[str, ...]], found: list[RatedReview]
) -> None:
    assert list(reviews_of_table(table(tmp_path / "t.csv", *rows))) == found


def test_a_table_may_be_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("review,label\n很好,1\n".encode()))
    assert list(reviews_of_table(path)) == [RatedReview("很好", True)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"a,b\n1,2\n", "expected a column text, review", id="other-columns"),
        pytest.param(b"", "got none", id="empty"),
        pytest.param(b"review,label\n\xff\xfe,1\n", "not a table of reviews", id="not-utf-8"),
        pytest.param(b"\x1f\x8bnot gzip", "not a table of reviews", id="damaged"),
    ],
)
def test_what_is_no_table_of_reviews_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(BadSource, match=rf"t\.csv: .*{reason}"):
        list(reviews_of_table(path))


# --- the folder and the command ------------------------------------------------------------------


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "N_RESAMPLES", 20)
    monkeypatch.setattr(training, "N_BUCKETS", 1 << 12)


@pytest.mark.usefixtures("_quick")
def test_a_folder_says_what_it_was_made_from(tmp_path: Path) -> None:
    out, told = tmp_path / "model", list[int]()
    made = train_into(out, [*map(RatedReview, *reviews(1200))], HashEncoder(), told.append)
    assert sum(told) == made.n_reviews == 1200
    assert len(told) == 2
    assert load_sentiment(out).encoder_id == "hash-32"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["name"] == made.name
    assert manifest["data"]["n_reviews"] == 1200
    assert manifest["validation"]["accuracy"][0] > 0.8


@pytest.mark.usefixtures("_quick")
def test_the_command_learns_from_several_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.encoders.open_encoder", lambda _: HashEncoder())
    texts, content = reviews()
    halves = [
        table(
            tmp_path / f"{n}.csv",
            ("text", "label"),
            *zip(texts[n::2], map(str, map(int, content[n::2])), strict=True),
        )
        for n in (0, 1)
    ]
    out = tmp_path / "model"
    command = ["train", "sentiment", *map(str, halves), "--out", str(out)]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert f"{load_sentiment(out).name} written to {out}" in said
    assert "accuracy 0." in said
    assert "asked about 75 of 600 reviews" in said
    assert run(command) == 1
    assert "something already" in capsys.readouterr().err


def test_too_few_reviews_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.encoders.open_encoder", lambda _: HashEncoder())
    file = table(tmp_path / "t.csv", ("text", "label"), ("good", "1"), ("bad", "0"))
    assert run(["train", "sentiment", str(file), "--out", str(tmp_path / "model")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected 50 reviews" in said
    assert not (tmp_path / "model").exists()


def test_a_log_in_json_lines_can_be_learnt_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.encoders.open_encoder", lambda _: HashEncoder())
    path = tmp_path / "log.jsonl"
    lines = [
        {"topic": "reviews", "value": msgspec.to_builtins(review(event_id=str(n), rating=stars))}
        for n, stars in enumerate([1.0, 5.0, 5.0])
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    command = ["train", "sentiment", str(path), "--format", "jsonl"]
    assert run([*command, "--out", str(tmp_path / "model")]) == 1
    assert "got 1" in capsys.readouterr().err
