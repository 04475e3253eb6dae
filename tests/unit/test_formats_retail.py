"""The reader of UCI Online Retail.

The real logs' numbers were counted apart from the readers, with plain JSON and data frames.
"""

from __future__ import annotations

from collections import Counter
from math import inf, nan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from format_checks import check_promises, events_of, real, taken

from stream.core.events import Interaction, Item
from stream.formats import BadSource, within


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


def test_titles_that_are_all_numbers_are_titles(tmp_path: Path):
    path = tmp_path / "retail.csv"
    path.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,1984,6,2010-12-01 08:26:00,2.55,17850,33\n"
    )
    item, purchase = events_of(taken(path, "online_retail")[0])
    assert (item.title, purchase.context.region) == ("1984", "33")


def test_a_customer_of_no_number_is_none(tmp_path: Path):
    path = write_retail(tmp_path, [retail_row(**{"Customer ID": n}) for n in (1.0, nan, inf)])
    _, report = taken(path, "online_retail")
    assert report.dropped == {"no customer": 2}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"Invoice": "1"}], "no column StockCode"),
        ([retail_row(InvoiceDate="1/12/09 7:45")], "not of the form"),
        ([retail_row(InvoiceDate=[1])], "not of the form"),
        ([retail_row(Quantity="two")], "column Quantity is of type string"),
        ([retail_row(Description=b"x")], "column Description is of type binary"),
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
