"""The readers: small files that the tests write, and the real logs where they are at hand.

The real logs' numbers were counted apart from the readers, with plain JSON and data frames.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from stream.core.events import PARSERS, Interaction, Item, Review
from stream.formats import FORMATS, BadSource, Format, ReadReport, Record, begun, read, within
from stream.formats.text import plain, price

DATA = Path(os.environ.get("PREFSTREAM_DATA", Path(__file__).parents[2].parent / "shared/data"))
DAY_MS = 86_400_000


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name} in {DATA} (set PREFSTREAM_DATA)")
    return path


def events_of(records: list[Record]) -> list[Any]:
    return [PARSERS[r.topic](r.value, r.key) for r in records]


def taken(path: Path, format: Format, **options: Any) -> tuple[list[Record], ReadReport]:
    report = ReadReport()
    return list(read(path, format, report, **options)), report


def check_promises(records: list[Record], report: ReadReport) -> list[Any]:
    """What every reader promises; returns the parsed events."""
    topics = [record.topic for record in records]
    assert Counter(topics) == report.records
    n_items = topics.count("items")
    assert set(topics[:n_items]) <= {"items"}
    parsed = events_of(records)
    times = [record.event_time_ms for record in records[n_items:]]
    assert times == sorted(times) == [event.event_time_ms for event in parsed[n_items:]]
    assert (report.first_ms, report.last_ms) == (times[0], times[-1])
    assert all(item.updated_ms <= times[0] for item in parsed[:n_items])
    ids = [event.event_id for event in parsed[n_items:]]
    assert len(set(ids)) == len(ids)
    return parsed


# --- Amazon --------------------------------------------------------------------------------------


def amazon_review(**fields: Any) -> dict[str, Any]:
    base = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "verified": True}
    text = {"reviewText": "Great", "summary": "Five Stars", "unixReviewTime": 1_400_000_000}
    return {**base, **text, **fields}


def write_amazon(folder: Path, reviews: list[Any], metadata: list[Any]) -> Path:
    for name, rows in (("Toys_5.json.gz", reviews), ("meta_Toys.json.gz", metadata)):
        with gzip.open(folder / name, "wt") as file:
            file.writelines(
                (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows
            )
    return folder / "Toys_5.json.gz"


META = {"asin": "B1", "title": "Toy &amp; Co", "price": "$1,250.00", "category": ["Toys", "Toys"]}


def test_a_verified_review_is_a_purchase_and_a_review(tmp_path: Path):
    records, _ = taken(write_amazon(tmp_path, [amazon_review()], [META]), "amazon")
    item, purchase, review = events_of(records)
    assert (item.title, item.price, item.currency) == ("Toy & Co", 1250.0, "USD")
    assert item.categories == ["Toys"]
    assert (purchase.type, purchase.user_id, purchase.item_id) == ("purchase", "A1", "B1")
    assert (review.text, review.title, review.rating) == ("Great", "Five Stars", 5.0)
    assert purchase.event_time_ms == review.event_time_ms == 1_400_000_000_000


def test_reviews_are_given_in_time_order_and_duplicates_once(tmp_path: Path):
    rows = [amazon_review(unixReviewTime=t, verified=False) for t in (300, 100, 200, 100)]
    rows.append(amazon_review(unixReviewTime=100, verified=False, reviewText="Another"))
    records, report = taken(write_amazon(tmp_path, rows, [META]), "amazon")
    times = [r.event_time_ms for r in records if r.topic == "reviews"]
    assert times == [100_000, 100_000, 200_000, 300_000]
    assert report.dropped == {"duplicate": 1}
    assert report.expected == 5


def test_dirt_is_dropped_with_its_reason(tmp_path: Path):
    reviews = [
        amazon_review(reviewText=None, summary=None),
        amazon_review(overall=9.0, verified=False),
        {"asin": "B1"},
        "{broken",
    ]
    reviews[0].pop("verified")
    metadata = [
        {**META, "title": "  "},
        {**META, "asin": "B2", "title": "var aPageStart = (new Date()).getTime();"},
        {**META, "asin": "B3", "price": "$1.00 - $2.00"},
        {**META, "asin": "B3"},
        {**META, "asin": "B4", "description": ["<b>Soft</b> &amp; warm<br/>", "I <3 it"]},
    ]
    records, report = taken(write_amazon(tmp_path, reviews, metadata), "amazon")
    b3, b4, review = events_of(records)
    assert (b3.price, b3.currency) == (None, None)
    assert b4.description == "Soft & warm I <3 it"
    assert (review.text, review.title) == ("", None)
    assert report.dropped == {
        "reviews: Expected `float` <= 5.0 - at `$.rating`": 1,
        "review: Object missing required field `reviewerID`": 1,
        "review: not JSON": 1,
        "metadata: no title": 2,
        "metadata: duplicate": 1,
    }
    assert report.altered == {"metadata: unreadable price left out": 1}


def test_missing_metadata_is_named(tmp_path: Path):
    path = write_amazon(tmp_path, [amazon_review()], [META])
    (tmp_path / "meta_Toys.json.gz").rename(tmp_path / "elsewhere.gz")
    with pytest.raises(BadSource, match=r"expected meta_Toys.json\[.gz\]"):
        taken(path, "amazon")
    records, _ = taken(path, "amazon", items=tmp_path / "elsewhere.gz")
    assert len(records) == 3


def test_all_gift_cards():
    records, report = taken(real("amazon_gift_cards"), "amazon")
    parsed = check_promises(records, report)
    assert report.records == {"reviews": 2972, "clickstream": 2838, "items": 1547}
    assert not report.dropped
    reviews = [event for event in parsed if isinstance(event, Review)]
    assert len({review.user_id for review in reviews}) == 458
    assert len({review.item_id for review in reviews}) == 148
    assert {review.item_id for review in reviews} <= {
        event.item_id for event in parsed if isinstance(event, Item)
    }
    stars = Counter(review.rating for review in reviews)
    assert stars == {5.0: 2752, 4.0: 154, 3.0: 33, 2.0: 11, 1.0: 22}


def test_the_same_log_gives_the_same_bytes_each_time():
    path = real("amazon_gift_cards")
    assert taken(path, "amazon")[0] == taken(path, "amazon")[0]


# --- Online Retail -------------------------------------------------------------------------------


def retail_row(**fields: Any) -> dict[str, Any]:
    base = {"Invoice": "489434", "StockCode": "85048", "Description": "GLASS BALL", "Price": 6.95}
    more = {"InvoiceDate": "2009-12-01 07:45:00", "Customer ID": 13085.0, "Country": "France"}
    return {**base, "Quantity": 12, **more, **fields}


def write_retail(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path / "retail.parquet")
    return path / "retail.parquet"


def test_a_line_of_an_invoice_is_a_purchase(tmp_path: Path):
    item, purchase = events_of(taken(write_retail(tmp_path, [retail_row()]), "online_retail")[0])
    assert item == Item(
        item_id="85048",
        title="GLASS BALL",
        updated_ms=1_259_653_500_000,
        price=6.95,
        currency="GBP",
    )
    assert (purchase.type, purchase.user_id, purchase.session_id) == ("purchase", "13085", "489434")
    assert (purchase.quantity, purchase.price, purchase.context.region) == (12, 6.95, "France")


def test_a_cancellation_gives_the_item_back(tmp_path: Path):
    rows = [retail_row(), retail_row(Invoice="C489449", Quantity=-12)]
    *_, returned = events_of(taken(write_retail(tmp_path, rows), "online_retail")[0])
    assert (returned.type, returned.quantity) == ("remove_from_cart", 12)


def test_the_title_is_the_description_most_often_seen(tmp_path: Path):
    rows = [
        retail_row(Description=" PINK  LIGHTS", StockCode="79323P", Invoice="1"),
        retail_row(Description="damaged", StockCode="79323p", Invoice="2"),
        retail_row(Description="PINK LIGHTS", StockCode="79323p ", Invoice="3", Price=5.0),
        retail_row(Description=None, StockCode="79323P", Invoice="4"),
        retail_row(Description="wet", StockCode="79323P", Invoice="5", Price=0.0),
    ]
    items = [
        event
        for event in events_of(taken(write_retail(tmp_path, rows), "online_retail")[0])
        if isinstance(event, Item)
    ]
    assert [(item.item_id, item.title, item.price) for item in items] == [
        ("79323P", "PINK LIGHTS", 6.95)
    ]


def test_lines_that_are_no_act_of_a_customer_are_counted(tmp_path: Path):
    rows = [
        retail_row(),
        retail_row(),
        retail_row(StockCode="POST"),
        retail_row(StockCode="M"),
        retail_row(StockCode="gift_0001_20"),
        retail_row(**{"Customer ID": None}),
        retail_row(Quantity=-3),
        retail_row(Price=0.0),
    ]
    records, report = taken(write_retail(tmp_path, rows), "online_retail")
    assert report.records == {"items": 1, "clickstream": 1}
    assert report.dropped == {
        "no product": 3,
        "no customer": 1,
        "no price": 1,
        "quantity of the wrong sign": 1,
        "duplicate": 1,
    }
    assert len(records) == 2


def test_the_first_edition_as_csv_reads_alike(tmp_path: Path):
    path = tmp_path / "retail.csv"
    path.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,WHITE HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n"
    )
    _, purchase = events_of(taken(path, "online_retail")[0])
    assert (purchase.user_id, purchase.price, purchase.item_id) == ("17850", 2.55, "85123A")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"Invoice": "1"}], "no column StockCode"),
        ([retail_row(InvoiceDate="1/12/09 7:45")], "not of the form"),
    ],
)
def test_another_table_is_refused(tmp_path: Path, rows: list[Any], problem: str):
    with pytest.raises(BadSource, match=problem):
        taken(write_retail(tmp_path, rows), "online_retail")


@pytest.mark.slow
def test_all_of_online_retail():
    records, report = taken(real("online_retail/online_retail_2009_2010.parquet"), "online_retail")
    parsed = check_promises(records, report)
    assert report.n_read == 525_461
    assert report.records == {"items": 4082, "clickstream": 408_941}
    assert report.dropped == {
        "no customer": 103_136,
        "duplicate": 6765,
        "no price": 3653,
        "no product": 2966,
    }
    acts = [event for event in parsed if isinstance(event, Interaction)]
    assert Counter(act.type for act in acts) == {"purchase": 399_568, "remove_from_cart": 9373}
    assert len({act.user_id for act in acts}) == 4314
    january_ms = 1_262_304_000_000
    december = [r for r in within(records, until_ms=january_ms) if r.topic != "items"]
    assert len(december) == 31_180


# --- Taobao and REES46 ---------------------------------------------------------------------------


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


def test_rees46_without_its_header_is_refused(tmp_path: Path):
    (tmp_path / "log.csv").write_text("1,2,3\n")
    with pytest.raises(BadSource, match="expected the header event_time,"):
        taken(tmp_path / "log.csv", "rees46")


# --- our own -------------------------------------------------------------------------------------


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


# --- all -----------------------------------------------------------------------------------------


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
