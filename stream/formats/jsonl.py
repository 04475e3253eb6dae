"""Our own logs: JSON lines, as they are or gzipped -> records, byte for byte.

One message a line: ``{"topic": "clickstream", "key": "u1", "value": {…}}``. ``topic`` is a source
topic without the settings' prefix; ``key`` may be left out (then it is the value's user_id, or
item_id for items); a ``value`` of null is a tombstone, and needs the key. With a topic given from
outside, each line is the bare value. Lines are given in the file's order, values unchecked: what
is recorded is what is replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from stream.core.events import PARSERS
from stream.formats.source import Line, ReadReport, Record, read_lines


class BadLine(ValueError):
    """A line that is no message; the text carries no value of it."""


class _Message(Struct):
    topic: str
    value: Raw
    key: str | None = None


class _Facts(Struct):
    """What a value says of its own key and time, whatever its topic."""

    user_id: str | None = None
    item_id: str | None = None
    event_time_ms: int | None = None
    updated_ms: int | None = None


_message = msgspec.json.Decoder(_Message)
_facts = msgspec.json.Decoder(_Facts)
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_line(line: Line, topic: str | None = None) -> Record:
    """Return the message of a line; ``topic`` says that the line is a bare value of it.

    Raises BadLine when it is none. The value itself is not checked.
    """
    if line.raw is None:
        raise BadLine("longer than any message can be")
    if topic is not None:
        return _record(topic, None, line.raw)
    try:
        message = _message.decode(line.raw)
    except msgspec.ValidationError as error:
        raise BadLine(f"no message: {error}") from None
    except _ERRORS:
        raise BadLine("not JSON") from None
    if message.topic not in PARSERS:
        raise BadLine(f"unknown topic; expected one of {', '.join(PARSERS)}")
    value = bytes(message.value)
    if value == b"null":
        if message.key is None:
            raise BadLine("a tombstone without a key")
        return Record(message.topic, message.key.encode(), None, 0)
    return _record(message.topic, message.key, value)


def _record(topic: str, key: str | None, value: bytes) -> Record:
    try:
        facts = _facts.decode(value)
    except _ERRORS:
        facts = _Facts()
    if key is None:
        key = facts.item_id if topic == "items" else facts.user_id
    time_ms = facts.event_time_ms or facts.updated_ms or 0
    return Record(topic, None if key is None else key.encode(), value, time_ms)


def read_jsonl(path: Path, report: ReadReport, *, topic: str | None = None) -> Iterator[Record]:
    """Yield the messages of a file; lines that are none are dropped and counted.

    Reads the file once before, for the span of time that the report owes its reader.
    """
    report.expected = 0
    for record in _records(path, topic, ReadReport()):
        report.expected += record.topic != "items"
        if (time_ms := record.event_time_ms) > 0:
            report.first_ms = min(time_ms, report.first_ms or time_ms)
            report.last_ms = max(time_ms, report.last_ms or time_ms)
    for record in _records(path, topic, report):
        report.records[record.topic] += 1
        yield record


def _records(path: Path, topic: str | None, report: ReadReport) -> Iterator[Record]:
    for line in read_lines(path):
        report.n_read += 1
        try:
            yield parse_line(line, topic)
        except BadLine as error:
            report.dropped[str(error)] += 1
