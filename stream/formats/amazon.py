"""Amazon reviews and metadata (2018 edition: JSON lines, mostly gzipped) -> records.

A metadata line becomes an item; its title may hold markup, its price anything. A review becomes a
review, and before it, when the purchase is verified, a purchase at the same time (days are as fine
as this log gets). Reviews are given in time order, whatever their order in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from stream.core.events import Interaction, Item, Review
from stream.formats.source import BadSource, ReadReport, Record, event_id, read_lines
from stream.formats.spool import Spool, catalogue
from stream.formats.text import plain, price


class _Review(Struct):
    reviewerID: str
    asin: str
    unixReviewTime: int
    overall: float | None = None
    verified: bool = False
    reviewText: str | None = None
    summary: str | None = None
    style: Any = None


class _Metadata(Struct):
    asin: str
    title: str | None = None
    description: list[str] | str | None = None
    feature: list[str] | None = None
    category: list[str] | None = None
    brand: str | None = None
    price: str | None = None
    imageURLHighRes: list[str] | None = None


Row = TypeVar("Row", bound=Struct)


def read_amazon(path: Path, report: ReadReport, *, items: Path | None = None) -> Iterator[Record]:
    """Yield the catalogue, then purchases and reviews in time order.

    ``path`` is the reviews' file or the folder that holds both; ``items`` the metadata's file,
    looked for beside the reviews when left out. Raises BadSource when either is missing.
    """
    reviews, metadata = _files(path, items)
    with Spool(report) as spool:
        for row in _rows(reviews, _Review, "review", report):
            for event in _events(row):
                spool.add(event)
        spool.close_intake()
        first_ms = report.first_ms or 1
        yield from catalogue(_items(metadata, first_ms, report), report)
        yield from spool.in_time_order()


def _files(path: Path, items: Path | None) -> tuple[Path, Path]:
    folder = path if path.is_dir() else path.parent
    metas = sorted(folder.glob("meta_*.json*"))
    if path.is_dir():
        others = [p for p in sorted(path.glob("*.json*")) if p not in metas and p != items]
        if len(others) != 1:
            raise BadSource(f"{path}: expected one file of reviews, *.json[.gz], got {len(others)}")
        path = others[0]
    if items is None:
        # Reviews of "X" come as X.json, X_5.json (the 5-core) or X.json.gz; metadata as meta_X.
        name = re.sub(r"(_5)?\.json(\.gz)?$", "", path.name)
        items = next((meta for meta in metas if meta.name.startswith(f"meta_{name}.json")), None)
        if items is None:
            raise BadSource(f"{path}: no metadata beside it; expected meta_{name}.json[.gz]")
    return path, items


def _rows(path: Path, row_type: type[Row], name: str, report: ReadReport) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(row_type)
    for line in read_lines(path):
        report.n_read += 1
        try:
            yield decoder.decode(line.raw or b"")
        except msgspec.ValidationError as error:
            report.dropped[f"{name}: {error}"] += 1
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            report.dropped[f"{name}: not JSON"] += 1


def _events(row: _Review) -> Iterator[Interaction | Review]:
    # A user may review an item twice in a day, so the text is a part of what tells them apart.
    facts = (row.reviewerID, row.asin, row.unixReviewTime, row.overall, row.summary, row.reviewText)
    ref = event_id("amazon", *facts, row.style)
    time_ms = row.unixReviewTime * 1000
    who: dict[str, Any] = {"user_id": row.reviewerID, "item_id": row.asin, "event_time_ms": time_ms}
    if row.verified:
        yield Interaction(event_id=f"purchase-{ref}", type="purchase", **who)
    yield Review(
        event_id=f"review-{ref}",
        text=plain(row.reviewText),
        title=plain(row.summary) or None,
        rating=row.overall,
        **who,
    )


def _items(path: Path, updated_ms: int, report: ReadReport) -> Iterator[Item]:
    seen: set[str] = set()
    for row in _rows(path, _Metadata, "metadata", report):
        if row.asin in seen:
            report.dropped["metadata: duplicate"] += 1
            continue
        seen.add(row.asin)
        title = plain(row.title)
        # Some pages were scraped as the script that was to build them.
        if not title or "getTime()" in title:
            report.dropped["metadata: no title"] += 1
            continue
        amount = price(row.price or "")
        if amount is None and row.price:
            report.altered["metadata: unreadable price left out"] += 1
        yield Item(
            item_id=row.asin,
            title=title,
            updated_ms=updated_ms,
            description=_description(row) or None,
            categories=list(dict.fromkeys(map(plain, row.category or []))),
            brand=plain(row.brand) or None,
            price=amount,
            currency=None if amount is None else "USD",
            image_url=next(iter(row.imageURLHighRes or []), None),
        )


def _description(row: _Metadata) -> str:
    parts = [row.description] if isinstance(row.description, str) else row.description
    return plain(" ".join(parts or [])) or plain(" ".join(row.feature or []))
