"""UCI Online Retail (I and II; Parquet or CSV) -> records.

One line is one product on one invoice. A sale becomes a purchase. A cancellation (invoice C…)
becomes ``remove_from_cart``: the shopper gave the item back, which is the nearest act there is,
and speaks against it. Lines without a customer belong to nobody and are dropped, as are lines
that are no product (postage, fees, manual corrections, vouchers, samples) and those without a
price or a quantity (stock corrections). Times have no zone and are read as UTC.

The file has no catalogue: an item is a stock code, in upper case since both occur for one
product; its title the description most often seen, its price the one most often asked.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from stream.core.events import Context, Interaction, Item
from stream.formats.source import BadSource, ReadReport, Record, event_id
from stream.formats.spool import Spool, catalogue
from stream.formats.text import plain

#: Five digits and a letter or two for the variant; a few ranges have codes of their own.
PRODUCT = re.compile(r"\d{5}[A-Z]{0,2}|DCGS[A-Z0-9]+|SP\d{4}|PADS")
CURRENCY = "GBP"
#: Our name -> what the editions call it.
COLUMNS = {
    "invoice": ("Invoice", "InvoiceNo"),
    "code": ("StockCode",),
    "description": ("Description",),
    "quantity": ("Quantity",),
    "time": ("InvoiceDate",),
    "price": ("Price", "UnitPrice"),
    "customer": ("Customer ID", "CustomerID"),
    "country": ("Country",),
}


class _Shelf:
    """What is seen of each product, to make a catalogue of."""

    def __init__(self) -> None:
        self._titles: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._prices: defaultdict[str, Counter[float]] = defaultdict(Counter)

    def see(self, code: str, description: str, price: float) -> None:
        self._titles[code][description] += 1
        self._prices[code][price] += 1

    def items(self, updated_ms: int) -> Iterator[Item]:
        for code, titles in self._titles.items():
            [(title, _)] = titles.most_common(1)
            [(price, _)] = self._prices[code].most_common(1)
            yield Item(
                item_id=code, title=title, updated_ms=updated_ms, price=price, currency=CURRENCY
            )


def read_online_retail(path: Path, report: ReadReport) -> Iterator[Record]:
    """Yield the catalogue, then purchases and cancellations in time order.

    Raises BadSource when the file is missing, is neither Parquet nor CSV, or lacks a column.
    """
    shelf = _Shelf()
    with Spool(report) as spool:
        for row in _rows(path, report):
            if (event := _event(row, shelf, report)) is not None:
                spool.add(event)
        spool.close_intake()
        yield from catalogue(shelf.items(report.first_ms or 1), report)
        yield from spool.in_time_order()


def _event(row: dict[str, Any], shelf: _Shelf, report: ReadReport) -> Interaction | None:
    code = str(row["code"]).strip().upper()
    invoice, quantity, price = str(row["invoice"]).strip(), row["quantity"], row["price"]
    cancelled = invoice.startswith("C")
    reason = None
    if not PRODUCT.fullmatch(code):
        reason = "no product"
    elif price is None or not price > 0:
        reason = "no price"
    elif not quantity or (quantity < 0) != cancelled:
        reason = "quantity of the wrong sign"
    elif not cancelled and (description := plain(row["description"])):
        # Others look at a product through its title even when this line's buyer is unknown.
        shelf.see(code, description, price)
    customer = _number(row["customer"])
    if reason is None and (customer is None or row["time"] is None):
        reason = "no customer" if customer is None else "no time"
    if reason is not None or customer is None:
        report.dropped[reason or "no customer"] += 1
        return None
    return Interaction(
        event_id=event_id("online_retail", invoice, code, row["time"], quantity, price, customer),
        user_id=customer,
        item_id=code,
        type="remove_from_cart" if cancelled else "purchase",
        event_time_ms=row["time"],
        session_id=invoice,
        quantity=abs(quantity),
        price=price,
        currency=CURRENCY,
        context=Context(region=row["country"]),
    )


def _number(value: Any) -> str | None:
    """Return a customer's number, which a missing one elsewhere made a float, as text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return str(int(value)) if isinstance(value, int | float) else str(value).strip()


def _rows(path: Path, report: ReadReport) -> Iterator[dict[str, Any]]:
    try:
        for batch in _batches(path):
            table = pa.table(_columns(path, batch))
            report.n_read += table.num_rows
            yield from table.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise BadSource(f"{path}: {str(error).partition(chr(10))[0]}") from None


def _columns(path: Path, batch: pa.RecordBatch) -> dict[str, Any]:
    columns = {}
    for ours, names in COLUMNS.items():
        name = next((name for name in names if name in batch.schema.names), None)
        if name is None:
            raise BadSource(f"{path}: no column {' or '.join(names)}")
        if batch.schema.names.count(name) > 1:
            raise BadSource(f"{path}: more than one column {name}")
        columns[ours] = batch.column(name)
        if ours != "time" and not _is_fit(columns[ours].type, ours):
            raise BadSource(f"{path}: column {name} is of type {columns[ours].type}")
    # A column that happens to hold nothing but numbers was read as such.
    for ours in ("description", "country"):
        columns[ours] = columns[ours].cast(pa.string())
    try:
        columns["time"] = columns["time"].cast(pa.timestamp("ms")).cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise BadSource(
            f"{path}: column InvoiceDate is not of the form 2009-12-01 07:45:00"
        ) from None
    return columns


def _is_fit(kind: pa.DataType, ours: str) -> bool:
    """True for a type of column that what we call ``ours`` can be read from."""
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind):
        return True
    if types.is_dictionary(kind):
        kind = kind.value_type
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return is_text and ours not in ("quantity", "price")


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix in (".csv", ".gz"):
        yield from pyarrow.csv.open_csv(path)
    else:
        yield from pyarrow.parquet.ParquetFile(path).iter_batches()
