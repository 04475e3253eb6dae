from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
from builders import interaction, item, search
from msgspec import Raw

from stream.formats import BadSource
from stream.validation import LineError, validate


def line(topic: str, value: object, key: str | None = None) -> str:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    message = {"topic": topic, "value": Raw(raw)} | ({} if key is None else {"key": key})
    return msgspec.json.encode(message).decode()


MIXED = [
    line("items", item()),
    line("clickstream", interaction(), "u1"),
    "",
    line("clickstream", interaction(), "someone-else"),
    line("clickstream", b'{"event_id":"e","user_id":"alice","item_id":"i","type":"stare"}'),
    line("items", None, "i1"),
    line("searches", None, "u1"),
    "{not json",
    line("searches", search()),
    line("payments", {}),
]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(MIXED) + "\n")
    return path


def test_every_line_is_counted_by_topic_and_outcome(mixed: Path):
    report = validate(mixed)
    assert report.n_lines == 10
    assert report.counts == {
        ("items", "ok"): 1,
        ("items", "tombstone"): 1,
        ("clickstream", "ok"): 1,
        ("clickstream", "bad_event"): 2,
        ("searches", "ok"): 1,
        ("searches", "bad_event"): 1,
        ("-", "bad_line"): 2,
    }
    assert (report.ok, report.n_bad) == (False, 5)


def test_the_first_errors_have_line_numbers_and_name_the_field(mixed: Path):
    assert validate(mixed, max_errors=3).errors == [
        LineError(4, "clickstream", "the message has another key; expected its `user_id`"),
        LineError(5, "clickstream", "Invalid enum value - at `$.type`"),
        LineError(7, "searches", "expected a value of type Search, got null"),
    ]
    assert "alice" not in str(validate(mixed))


def test_a_gzipped_file_reads_alike(mixed: Path, tmp_path: Path):
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(mixed.read_bytes()))
    assert validate(packed) == validate(mixed)


def test_a_file_of_one_topic_has_bare_values(tmp_path: Path):
    path = tmp_path / "clicks.jsonl"
    good = msgspec.json.encode(interaction())
    path.write_bytes(b"\n".join([good, b"null", good, b"\xff"]))
    report = validate(path, topic="clickstream")
    assert report.counts == {("clickstream", "ok"): 2, ("clickstream", "bad_event"): 2}
    assert [error.line for error in report.errors] == [2, 4]


def test_a_good_file_is_ok(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(MIXED[:2]))
    assert validate(path).ok


def test_a_file_that_breaks_off_is_a_bad_line_at_its_end(tmp_path: Path):
    path = tmp_path / "log.jsonl.gz"
    lines = "".join(line("searches", search(event_id=f"s{n}")) + "\n" for n in range(20_000))
    path.write_bytes(gzip.compress(lines.encode())[:-500])
    report = validate(path)
    assert report.counts["searches", "ok"] == report.n_lines > 1000
    assert report.counts["-", "bad_line"] == 1
    assert report.errors[0].line == report.n_lines + 1
    assert "damaged after line" in report.errors[0].reason


def test_a_line_without_end_is_refused_without_being_kept(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text(MIXED[0] + "\n" + "x" * (17 * 1024 * 1024) + "\n" + MIXED[1])
    report = validate(path)
    assert report.counts == {
        ("items", "ok"): 1,
        ("-", "bad_line"): 1,
        ("clickstream", "ok"): 1,
    }
    assert report.errors == [LineError(2, "-", "longer than any message can be")]


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(BadSource, match=r"nowhere\.jsonl: No such file"):
        validate(tmp_path / "nowhere.jsonl")


def test_another_format_is_judged_by_its_reader(tmp_path: Path):
    path = tmp_path / "taobao.csv"
    path.write_text("1,2,3,pv,1511544070\n1,2,3,stare,1511544070\n")
    report = validate(path, "taobao")
    assert report.n_lines == 2
    assert report.counts == {("items", "ok"): 1, ("clickstream", "ok"): 1, ("-", "dropped"): 1}
    assert report.reasons == {"unreadable line": 1}
    assert report.ok
