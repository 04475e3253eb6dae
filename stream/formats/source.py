"""What every reader gives: records in order, and a report of what it left out and why."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

#: A longer line is not read into memory whole: it is no event, the broker would refuse it.
MAX_LINE_BYTES = 16 * 1024 * 1024
READ_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


class BadSource(ValueError):
    """A file that cannot be read as the format it was said to be; the text names it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message to be; a value of None is a tombstone, ``event_time_ms`` 0 is unknown."""

    topic: str
    key: bytes | None
    value: bytes | None
    event_time_ms: int


@dataclass
class ReadReport:
    """What a reader saw: complete once its records have all been taken.

    ``first_ms``, ``last_ms`` and ``expected`` (events to come, duplicates included) are set before
    the first record is given.
    """

    n_read: int = 0
    records: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    altered: Counter[str] = field(default_factory=Counter)
    expected: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, from 1, without its end; ``raw`` is None when it is far too long."""

    number: int
    raw: bytes | None


def open_source(path: Path) -> BinaryIO:
    """Open a file that may be gzipped, whatever its name; raise BadSource if there is none."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadSource(f"{path}: {error.strerror}") from None
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()
    return gzip.open(path, "rb")  # type: ignore[return-value]


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file in constant memory; blank ones are numbered but not given.

    Raises BadSource, naming the line, where a gzipped file is damaged.
    """
    number = 0
    with open_source(path) as file:
        try:
            while raw := file.readline(MAX_LINE_BYTES):
                number += 1
                whole = True
                while len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
                    raw, whole = file.readline(MAX_LINE_BYTES), False
                if not whole:
                    yield Line(number, None)
                elif stripped := raw.strip():
                    yield Line(number, stripped)
        except READ_ERRORS as error:
            raise BadSource(f"{path}: damaged after line {number}: {error}") from None


def event_id(*facts: object) -> str:
    """Return the id of an event of a log that has none: the same facts give the same id."""
    text = "\x1f".join(map(str, facts))
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=12).hexdigest()


def begun(records: Iterator[Record]) -> Iterator[Record]:
    """Return the same records with the source read up to the first, so its report knows the span.

    Raises BadSource at once, where the reader itself would at its first record.
    """
    first = list(islice(records, 1))
    return chain(first, records)


def within(
    records: Iterable[Record], since_ms: int | None = None, until_ms: int | None = None
) -> Iterator[Record]:
    """Yield the catalogue, and the events of ``since_ms`` <= time < ``until_ms``."""
    for record in records:
        early = since_ms is not None and record.event_time_ms < since_ms
        late = until_ms is not None and record.event_time_ms >= until_ms
        if record.topic == "items" or not (early or late):
            yield record
