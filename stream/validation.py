"""A file -> what the worker would make of it: the same parser, no broker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stream.core.events import PARSERS, BadEvent
from stream.formats import BadSource, Format, ReadReport, Record, read
from stream.formats.jsonl import BadLine, parse_line
from stream.formats.source import Line, read_lines
from stream.topics import TOPICS

Outcome = Literal["ok", "tombstone", "bad_event", "bad_line", "dropped"]
#: The topic of lines that name none.
NO_TOPIC = "-"
_COMPACTED = {spec.name for spec in TOPICS if "compact" in spec.cleanup}


@dataclass(frozen=True, slots=True)
class LineError:
    """One refused line; ``reason`` names the field and carries no value."""

    line: int
    topic: str
    reason: str


@dataclass
class Report:
    """What a file holds.

    ``counts`` is by topic and outcome: ``ok``; ``tombstone`` (a removal); ``bad_event`` (would be a
    dead letter); ``bad_line`` (no message at all); ``dropped`` (a reader of another format left it
    out, ``reasons`` say why). ``errors`` are the first ones, in order.
    """

    n_lines: int = 0
    counts: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    errors: list[LineError] = field(default_factory=list)

    @property
    def n_bad(self) -> int:
        """Lines that would not become an event."""
        bad = ("bad_event", "bad_line")
        return sum(n for (_, outcome), n in self.counts.items() if outcome in bad)

    @property
    def ok(self) -> bool:
        """True when nothing is bad; what a reader drops by its stated rules is not."""
        return self.n_bad == 0


def validate(
    path: Path,
    format: Format = "jsonl",
    *,
    topic: str | None = None,
    items: Path | None = None,
    max_errors: int = 20,
) -> Report:
    """Read a whole file, jsonl in constant memory, and report on every line.

    ``topic`` says that a jsonl file holds bare values of that topic; ``items`` is Amazon's
    metadata. Raises BadSource when the file cannot be opened or is not of the format; a gzipped
    one that breaks off is a bad line at its end.
    """
    if format != "jsonl":
        return _validate_log(path, format, items)
    report = Report()
    lines = read_lines(path)
    while True:
        try:
            line = next(lines, None)
        except BadSource as error:
            if not report.n_lines:
                raise
            _refuse(report, max_errors, report.n_lines + 1, NO_TOPIC, "bad_line", str(error))
            return report
        if line is None:
            return report
        report.n_lines = line.number
        _judge(line, topic, report, max_errors)


def _judge(line: Line, topic: str | None, report: Report, max_errors: int) -> None:
    try:
        record = parse_line(line, topic)
    except BadLine as error:
        _refuse(report, max_errors, line.number, topic or NO_TOPIC, "bad_line", str(error))
        return
    if record.value is None and record.topic in _COMPACTED:
        report.counts[record.topic, "tombstone"] += 1
        return
    try:
        _parse(record)
    except BadEvent as error:
        _refuse(report, max_errors, line.number, record.topic, "bad_event", str(error))
        return
    report.counts[record.topic, "ok"] += 1


def _parse(record: Record) -> None:
    if record.key is None:
        PARSERS[record.topic](record.value)
    else:
        PARSERS[record.topic](record.value, record.key)


def _refuse(
    report: Report, max_errors: int, line: int, topic: str, outcome: Outcome, reason: str
) -> None:
    report.counts[topic, outcome] += 1
    report.reasons[reason] += 1
    if len(report.errors) < max_errors:
        report.errors.append(LineError(line, topic, reason))


def _validate_log(path: Path, format: Format, items: Path | None) -> Report:
    """Report on another format: its reader checks each event by the same parser."""
    seen = ReadReport()
    for _ in read(path, format, seen, items=items):
        pass
    report = Report(n_lines=seen.n_read, reasons=seen.dropped + seen.altered)
    for topic, n in seen.records.items():
        report.counts[topic, "ok"] = n
    if dropped := seen.dropped.total():
        report.counts[NO_TOPIC, "dropped"] = dropped
    return report
