"""REES46 / Open CDP behaviour logs (CSV with a header) -> records.

The log names no products: a title is brand and category, or the bare numbers where both are
missing. Its prices have no currency.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from stream.core.events import Interaction, InteractionType, Item
from stream.formats.source import BadSource, ReadReport, Record, event_id, read_lines
from stream.formats.spool import Spool, catalogue
from stream.formats.text import price

ACTS: dict[str, InteractionType] = {
    "view": "view",
    "cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "purchase": "purchase",
}
COLUMNS = [
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
]


def read_rees46(path: Path, report: ReadReport) -> Iterator[Record]:
    """Yield the products as first seen, then the acts in time order; raises BadSource."""
    shelf: dict[str, list[str]] = {}
    with Spool(report) as spool:
        for row in _rows(path):
            report.n_read += 1
            if (event := _event(row, report)) is not None:
                shelf.setdefault(event.item_id, row)
                spool.add(event)
        spool.close_intake()
        items = (_item(row, report.first_ms or 1) for row in shelf.values())
        yield from catalogue(items, report)
        yield from spool.in_time_order()


def _rows(path: Path) -> Iterator[list[str]]:
    text = ((line.raw or b"").decode(errors="replace") for line in read_lines(path))
    rows = csv.reader(text)
    if _next_row(rows) != COLUMNS:
        raise BadSource(f"{path}: expected the header {','.join(COLUMNS)}")
    while (row := _next_row(rows)) is not None:
        yield row


def _next_row(rows: Iterator[list[str]]) -> list[str] | None:
    """Return a row, empty where it cannot be read as one; None at the end."""
    try:
        return next(rows, None)
    except csv.Error:
        return []


def _event(row: list[str], report: ReadReport) -> Interaction | None:
    if len(row) != len(COLUMNS):
        report.dropped["unreadable line"] += 1
        return None
    time, act, product, _, _, _, amount, user, session = row
    if act not in ACTS:
        report.dropped["unknown act"] += 1
        return None
    if (time_ms := _time_ms(time)) is None:
        report.dropped["unreadable time"] += 1
        return None
    return Interaction(
        event_id=event_id("rees46", *row),
        user_id=user,
        item_id=product,
        type=ACTS[act],
        event_time_ms=time_ms,
        session_id=session or None,
        price=price(amount),
    )


def _time_ms(text: str) -> int | None:
    """Return the time of ``2019-10-01 00:00:00 UTC``; without a zone it is UTC too."""
    try:
        when = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    except ValueError:
        return None
    # Never this machine's zone: a log reads the same everywhere.
    return round(when.replace(tzinfo=when.tzinfo or timezone.utc).timestamp() * 1000)


def _item(row: list[str], updated_ms: int) -> Item:
    _, _, product, category_id, code, brand, amount, _, _ = row
    categories = [part.replace("_", " ") for part in code.split(".") if part]
    title = " ".join(part for part in (brand, *categories[-1:]) if part)
    return Item(
        item_id=product,
        title=title or f"item {product} category {category_id}",
        updated_ms=updated_ms,
        categories=categories or [category_id],
        brand=brand or None,
        price=price(amount),
    )
