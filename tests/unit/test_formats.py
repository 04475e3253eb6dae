"""The readers of Taobao, REES46 and our own lines, and what holds for all.

The real logs' numbers were counted apart from the readers, with plain JSON and data frames.
"""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from format_checks import (
    DAY_MS,
    META,
    amazon_review,
    check_promises,
    events_of,
    real,
    taken,
    write_amazon,
)

from stream.core.events import Interaction
from stream.formats import FORMATS, BadSource, Format, ReadReport, Record, begun, read, within
from stream.formats.text import plain, price

# --- Taobao and REES46 ----------------------------------------------------------------------------


def test_taobao_acts_have_our_names_and_titles_are_numbers(tmp_path: Path):
    path = tmp_path / "taobao.csv"
    acts = ["pv", "fav", "cart", "buy"]
    path.write_text("".join(f"1,22,333,{act},{1_511_544_070 + n}\n" for n, act in enumerate(acts)))
    item, *events = events_of(taken(path, "taobao")[0])
    assert (item.title, item.categories) == ("item 22 category 333", ["333"])
    assert [event.type for event in events] == ["view", "favorite", "add_to_cart", "purchase"]
    assert events[0].event_time_ms == 1_511_544_070_000


def test_taobao_dirt_is_counted(tmp_path: Path):
    path = tmp_path / "taobao.csv"
    path.write_text("1,2,3,pv,1511544070\n1,2,3,pv,\n1,2,3,gaze,1511544070\n1,2\n1,2,3,pv,5\n")
    _, report = taken(path, "taobao")
    assert report.dropped == {"unreadable line": 3, "outside the days of the log": 1}


@pytest.mark.slow
def test_all_of_taobao():
    records, report = taken(real("taobao/UserBehavior_first815users.csv.gz"), "taobao")
    parsed = check_promises(records, report)
    assert report.records == {"items": 55_344, "clickstream": 84_440}
    assert report.dropped == {"outside the days of the log": 35, "unreadable line": 1}
    acts = [event for event in parsed if isinstance(event, Interaction)]
    assert len({act.user_id for act in acts}) == 815
    kinds = Counter(act.type for act in acts)
    assert kinds == {"view": 75_837, "add_to_cart": 4497, "favorite": 2356, "purchase": 1750}


def test_all_of_rees46():
    records, report = taken(real("rees46/2019-Oct-sample.csv"), "rees46")
    parsed = check_promises(records, report)
    assert report.records == {"items": 534, "clickstream": 1000}
    acts = [event for event in parsed if isinstance(event, Interaction)]
    assert Counter(act.type for act in acts) == {"view": 987, "purchase": 10, "add_to_cart": 3}
    assert len({act.session_id for act in acts}) == 372
    heater = next(event for event in parsed if event.item_id == "3900821")
    assert heater.title == "aqua water heater"
    assert heater.categories == ["appliances", "environment", "water heater"]
    assert (heater.brand, heater.price, heater.currency) == ("aqua", 33.20, None)


HEADER = (
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
)


def test_rees46_dirt_is_counted(tmp_path: Path):
    path = tmp_path / "log.csv"
    good = "2019-10-01 00:00:00 UTC,view,7,21,,,35.79,54,s\n"
    bad = [good.replace("view", "wish"), good.replace("2019-10", "2019-13"), "1,2\n"]
    nobody = good.replace(",54,", ",,")
    path.write_text(HEADER + good + good + "".join(bad) + nobody)
    records, report = taken(path, "rees46")
    assert events_of(records)[0].title == "item 7 category 21"
    assert report.dropped == {
        "duplicate": 1,
        "unknown act": 1,
        "unreadable time": 1,
        "unreadable line": 1,
        "clickstream: Expected `str` of length >= 1 - at `$.user_id`": 1,
    }


def test_a_time_without_a_zone_is_utc_wherever_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "2019-10-01 00:00:00,view,7,21,,,35.79,54,s\n")
    try:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "XYZ-5")
            time.tzset()
            records, _ = taken(path, "rees46")
    finally:
        time.tzset()
    assert records[-1].event_time_ms == 1_569_888_000_000


def test_a_line_that_is_no_csv_is_counted_and_the_next_one_read(tmp_path: Path):
    path = tmp_path / "log.csv"
    good = "2019-10-01 00:00:00 UTC,view,7,21,,,35.79,54,s\n"
    path.write_text(HEADER + good.replace("view", "vi\rew") + good)
    records, report = taken(path, "rees46")
    assert report.dropped == {"unreadable line": 1}
    assert len(records) == 2


def test_rees46_without_its_header_is_refused(tmp_path: Path):
    (tmp_path / "log.csv").write_text("1,2,3\n")
    with pytest.raises(BadSource, match="expected the header event_time,"):
        taken(tmp_path / "log.csv", "rees46")


# --- our own --------------------------------------------------------------------------------------


def write_jsonl(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_jsonl_gives_the_bytes_as_they_are_written(tmp_path: Path):
    path = write_jsonl(
        tmp_path / "log.jsonl",
        '{"topic":"items","value":{"item_id":"i1",  "title":"靴子","updated_ms":5,"own":1}}',
        '{"value":{"user_id":"u1","event_time_ms":7,"type":"nonsense"},"topic":"clickstream"}',
        '{"topic":"users","key":"u2","value":null}',
    )
    records, report = taken(path, "jsonl")
    assert records == [
        Record(
            "items", b"i1", '{"item_id":"i1",  "title":"靴子","updated_ms":5,"own":1}'.encode(), 5
        ),
        Record("clickstream", b"u1", b'{"user_id":"u1","event_time_ms":7,"type":"nonsense"}', 7),
        Record("users", b"u2", None, 0),
    ]
    assert (report.first_ms, report.last_ms, report.expected) == (5, 7, 2)


def test_lines_that_are_no_message_are_counted(tmp_path: Path):
    path = write_jsonl(
        tmp_path / "log.jsonl",
        "",
        "{",
        "[]",
        '{"topic":"payments","value":{}}',
        '{"topic":"users","value":null}',
        '{"topic":"users"}',
    )
    records, report = taken(path, "jsonl")
    assert records == []
    assert report.dropped == {
        "not JSON": 1,
        "no message: Expected `object`, got `array`": 1,
        "unknown topic; expected one of clickstream, searches, reviews, items, users": 1,
        "a tombstone without a key": 1,
        "no message: Object missing required field `value`": 1,
    }


def test_a_file_of_bare_values_takes_its_topic_from_outside(tmp_path: Path):
    path = write_jsonl(tmp_path / "searches.jsonl", '{"user_id":"u1","query":"q"}', "junk")
    records, _ = taken(path, "jsonl", topic="searches")
    assert records == [
        Record("searches", b"u1", b'{"user_id":"u1","query":"q"}', 0),
        Record("searches", None, b"junk", 0),
    ]


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_file_is_named(tmp_path: Path, format: Format):
    with pytest.raises(BadSource, match="nowhere"):
        taken(tmp_path / "nowhere.json", format)


def test_a_gzipped_file_that_breaks_off_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "log.csv"
    lines = "".join(f"{n},2,3,pv,1511544070\n" for n in range(10_000)).encode()
    path.write_bytes(gzip.compress(lines)[:-2000])
    with pytest.raises(BadSource, match=r"log.csv: damaged after line \d+"):
        taken(path, "taobao")


def test_the_span_is_known_before_the_first_record_is_used(tmp_path: Path):
    report = ReadReport()
    path = write_amazon(tmp_path, [amazon_review(unixReviewTime=t) for t in (9, 5)], [META])
    records = begun(read(path, "amazon", report))
    assert (report.first_ms, report.last_ms, report.expected) == (5000, 9000, 4)
    assert len(list(records)) == 5


def test_a_span_of_time_keeps_the_catalogue():
    def some() -> Iterator[Record]:
        yield Record("items", b"i", b"", 1)
        for day in range(5):
            yield Record("clickstream", b"u", b"", day * DAY_MS)

    kept = list(within(some(), since_ms=DAY_MS, until_ms=3 * DAY_MS))
    assert [record.event_time_ms for record in kept] == [1, DAY_MS, 2 * DAY_MS]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("$1.00", 1.0),
        (" 12 ", 12.0),
        ("$1,250.00", 1250.0),
        ("", None),
        ("$1.00 - $2.00", None),
        ("<span>9</span>", None),
        ("1,2", None),
    ],
)
def test_a_price_is_one_amount(text: str, amount: float | None):
    assert price(text) == amount


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (None, ""),
        ("a  b\n c", "a b c"),
        ("<p>a</p><br>b", "a b"),
        ("<style>p{}</style>a", "a"),
        ("2 < 3 &lt; 4 <3", "2 < 3 < 4 <3"),
        ("x" * 200_000, "x" * 100_000),
    ],
)
def test_text_is_read_as_a_person_would(text: str | None, read_as: str):
    assert plain(text) == read_as


def test_every_value_is_json(tmp_path: Path):
    records, _ = taken(write_amazon(tmp_path, [amazon_review()], [META]), "amazon")
    assert all(isinstance(msgspec.json.decode(r.value or b""), dict) for r in records)
