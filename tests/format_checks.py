"""What the tests of the log readers share: real logs where they are at hand, and promises."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stream.core.events import PARSERS
from stream.formats import Format, ReadReport, Record, read

DATA = Path(os.environ.get("PREFSTREAM_DATA", Path(__file__).parents[1].parent / "shared/data"))
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


META = {"asin": "B1", "title": "Toy &amp; Co", "price": "$1,250.00", "category": ["Toys", "Toys"]}


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
