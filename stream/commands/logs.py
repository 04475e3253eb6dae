"""``prefstream replay`` and ``validate``: behaviour logs from files."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.common import CommandFailed, broker_errors, one_line, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream.formats import ReadReport, Record
    from stream.replay import Pace, ReplayReport
    from stream.settings import Settings
    from stream.validation import Report


class LogFormat(Enum):
    """The same names as stream.formats.FORMATS, which is not loaded for a help text."""

    JSONL = "jsonl"
    AMAZON = "amazon"
    ONLINE_RETAIL = "online_retail"
    TAOBAO = "taobao"
    REES46 = "rees46"


DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

File = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="May be gzipped.")
]
Format = Annotated[LogFormat, typer.Option(help="What the file is.")]
Topic = Annotated[str | None, typer.Option(help="A jsonl file holds bare values of this topic.")]
Items = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Amazon's metadata; default: beside FILE."),
]


def validate(
    file: File,
    format: Format = LogFormat.JSONL,
    topic: Topic = None,
    items: Items = None,
    errors: Annotated[int, typer.Option(min=0, help="Print the first so many errors.")] = 20,
) -> None:
    """Check a file by the workers' own parser, without a broker.

    Prints what it holds by topic, and the first errors with their line numbers. Exits 1 when a
    line would not become an event.
    """
    from stream.formats import BadSource
    from stream.validation import validate

    known_topic(topic)
    with one_line(BadSource):
        report = validate(file, format.value, topic=topic, items=items, max_errors=errors)
    _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


def replay(
    file: File,
    format: Format,
    speed: Annotated[
        float, typer.Option(min=0, help="Log seconds per second; 0 = as fast as it goes.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many events.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=DATES, help="Only events from then on, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=DATES, help="Only events before, UTC.")
    ] = None,
    to_now: Annotated[
        bool, typer.Option("--to-now", help="Move all times, so that the last event is now.")
    ] = False,
    topic: Topic = None,
    items: Items = None,
) -> None:
    """Send a behaviour log into the topics, catalogue first.

    Returns once the broker has acknowledged every message; says what was left out, and why.
    """
    from stream.delivery import DeliveryFailed
    from stream.formats import BadSource, ReadReport, read, within
    from stream.formats.source import begun
    from stream.replay import Pace, shift_to

    known_topic(topic)
    settings, seen = settings_of(), ReadReport()
    with one_line(BadSource, DeliveryFailed), broker_errors(settings):
        records = begun(read(file, format.value, seen, items=items, topic=topic))
        shift_ms = shift_to(seen.last_ms, time.time_ns() // 1_000_000) if to_now else 0
        pace = Pace(speed=speed, limit=limit, shift_ms=shift_ms)
        wanted = within(records, epoch_ms(since), epoch_ms(until))
        report = asyncio.run(_replay(settings, wanted, pace, seen))
    for name, n in report.sent.items():
        typer.echo(f"{n} sent to {name}")
    _print_counts("left out", seen.dropped)
    _print_counts("altered", seen.altered)
    typer.echo(f"{report.sent.total()} messages in {report.seconds:.1f} s")


async def _replay(
    settings: Settings, records: Iterator[Record], pace: Pace, seen: ReadReport
) -> ReplayReport:
    from stream.kafka_client import KafkaSender
    from stream.replay import progress_bar, replay

    expected = min((n for n in (pace.limit, seen.expected) if n is not None), default=None)
    sender = KafkaSender(settings)
    try:
        await sender.start()
        with progress_bar(expected) as on_sent:
            return await replay(records, sender, pace, on_sent=on_sent)
    finally:
        await sender.stop()


def _print_report(report: Report) -> None:
    for error in report.errors:
        typer.echo(f"line {error.line}: {error.topic}: {error.reason}", err=True)
    for (topic, outcome), n in sorted(report.counts.items()):
        typer.echo(f"{n} {outcome} ({topic})")
    _print_counts("because", report.reasons)
    typer.echo(f"{report.n_lines} lines, {report.n_bad} would not become an event")


def _print_counts(what: str, counts: Counter[str]) -> None:
    for reason, n in counts.most_common():
        typer.echo(f"  {what}: {n} × {reason}")


def known_topic(topic: str | None) -> None:
    """Raise CommandFailed when '--topic' names none that there is."""
    from stream.core.events import PARSERS

    if topic is not None and topic not in PARSERS:
        allowed = ", ".join(PARSERS)
        raise CommandFailed(f"unknown topic {topic!r} for '--topic'; allowed are {allowed}", 2)


def epoch_ms(at: datetime | None) -> int | None:
    """Return an option's date, which is UTC, as epoch ms."""
    return None if at is None else round(at.replace(tzinfo=timezone.utc).timestamp() * 1000)
