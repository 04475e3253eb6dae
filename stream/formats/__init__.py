"""Real behaviour logs -> records for the source topics: catalogue first, then events in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from stream.formats.amazon import read_amazon
from stream.formats.jsonl import read_jsonl
from stream.formats.online_retail import read_online_retail
from stream.formats.rees46 import read_rees46
from stream.formats.source import BadSource, ReadReport, Record, begun, within
from stream.formats.taobao import read_taobao

Format = Literal["jsonl", "amazon", "online_retail", "taobao", "rees46"]
FORMATS: tuple[Format, ...] = get_args(Format)

__all__ = ["FORMATS", "BadSource", "Format", "ReadReport", "Record", "begun", "read", "within"]


def read(
    path: Path,
    format: Format,
    report: ReadReport,
    *,
    items: Path | None = None,
    topic: str | None = None,
) -> Iterator[Record]:
    """Yield the records of a log; ``report`` fills as they are taken.

    ``items`` is Amazon's metadata (default: beside the reviews); ``topic`` says that a jsonl file
    holds bare values of that topic. Raises BadSource when the file is not what it was said to be.
    """
    match format:
        case "jsonl":
            return read_jsonl(path, report, topic=topic)
        case "amazon":
            return read_amazon(path, report, items=items)
        case "online_retail":
            return read_online_retail(path, report)
        case "taobao":
            return read_taobao(path, report)
        case "rees46":
            return read_rees46(path, report)
