"""Records -> the source topics: as fast as the broker takes them, or at the pace of the log.

Messages are stamped with the broker's time, not the event's: retention goes by the stamp, and
would delete a log of ten years ago as it is written. The event time is in the value.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream.delivery import Output, Sender
from stream.formats import Record

TIME_FIELDS = ("event_time_ms", "updated_ms", "created_ms")
#: At a pace, the bar and a person's Ctrl-C are served at least this often.
TICK_S = 0.2

OnSent = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to go, and what to do to the times.

    ``speed`` is event-time seconds per second of the wall clock, 0 as fast as possible;
    ``shift_ms`` is added to every time; ``limit`` counts events, not items; ``batch`` messages
    are on their way at a time.
    """

    speed: float = 0.0
    limit: int | None = None
    shift_ms: int = 0
    batch: int = 2000

    def __post_init__(self) -> None:
        if self.speed < 0 or self.batch < 1 or (self.limit is not None and self.limit < 0):
            raise ValueError(
                "expected speed >= 0, batch >= 1 and limit >= 0, "
                f"got {self.speed}, {self.batch} and {self.limit}"
            )


@dataclass
class ReplayReport:
    """What the broker has acknowledged, by topic, and the span of the events' own times."""

    sent: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    seconds: float = 0.0


def shift_to(last_ms: int | None, now_ms: int) -> int:
    """Return the shift that brings a log's last event to now; 0 for a log without times."""
    return 0 if last_ms is None else now_ms - last_ms


async def replay(
    records: Iterable[Record],
    sender: Sender,
    pace: Pace = Pace(),
    *,
    on_sent: OnSent = lambda n: None,
    after_items: Callable[[], Awaitable[None]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ReplayReport:
    """Send every record and return once the broker has them all.

    Items that come first in ``records`` go first, at full speed; ``after_items`` is awaited
    before the first event (a place to wait until they are indexed). ``on_sent`` gets the number
    of events just acknowledged. Raises DeliveryFailed when the broker refuses.
    """
    report, start_s = ReplayReport(), clock()
    items, events = _split(iter(records))
    for batch in _batches(items, pace.batch):
        await _send(batch, sender, pace, report)
    if after_items is not None:
        await after_items()
    limited = events if pace.limit is None else _first(events, pace.limit)
    batches = _timed(limited, pace, clock) if pace.speed else _untimed(limited, pace.batch)
    async for batch in batches:
        await _send(batch, sender, pace, report)
        on_sent(sum(record.topic != "items" for record in batch))
    report.seconds = clock() - start_s
    return report


def _split(records: Iterator[Record]) -> tuple[Iterator[Record], Iterator[Record]]:
    """Return the leading items and the rest; the items must be taken first."""
    first_event: list[Record] = []

    def leading() -> Iterator[Record]:
        for record in records:
            if record.topic != "items":
                first_event.append(record)
                return
            yield record

    def rest() -> Iterator[Record]:
        yield from first_event
        yield from records

    return leading(), rest()


def _first(records: Iterator[Record], limit: int) -> Iterator[Record]:
    """Yield up to ``limit`` events, and the items among them."""
    for record in records:
        if record.topic != "items":
            if limit == 0:
                return
            limit -= 1
        yield record


def _batches(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    batch = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _untimed(records: Iterator[Record], size: int) -> AsyncIterator[list[Record]]:
    for batch in _batches(records, size):
        yield batch


async def _timed(
    records: Iterator[Record], pace: Pace, clock: Callable[[], float]
) -> AsyncIterator[list[Record]]:
    """Yield records when they are due: what falls due together goes together."""
    start_s, first_ms = clock(), None
    batch: list[Record] = []
    for record in records:
        if first_ms is None and record.event_time_ms > 0:
            first_ms = record.event_time_ms
        due_s = start_s + max(0, record.event_time_ms - (first_ms or 0)) / 1000 / pace.speed
        while (wait_s := due_s - clock()) > 0:
            if batch:
                yield batch
                batch = []
                continue
            await asyncio.sleep(min(wait_s, TICK_S))
        batch.append(record)
        if len(batch) >= pace.batch:
            yield batch
            batch = []
    if batch:
        yield batch


async def _send(batch: list[Record], sender: Sender, pace: Pace, report: ReplayReport) -> None:
    if pace.shift_ms:
        batch = [shifted(record, pace.shift_ms) for record in batch]
    await sender.send([Output(record.topic, record.key, record.value) for record in batch])
    report.sent.update(record.topic for record in batch)
    times = [r.event_time_ms for r in batch if r.topic != "items" and r.event_time_ms > 0]
    if times:
        report.first_ms = min(times) if report.first_ms is None else report.first_ms
        report.last_ms = max(times) if report.last_ms is None else max(report.last_ms, *times)


def shifted(record: Record, shift_ms: int) -> Record:
    """Return a record with every time moved; one that is not JSON stays as it is."""
    if record.value is None:
        return record
    try:
        value = msgspec.json.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return record
    if not isinstance(value, dict):
        return record
    for name in TIME_FIELDS:
        if isinstance(value.get(name), int):
            value[name] += shift_ms
    moved = record.event_time_ms + shift_ms if record.event_time_ms > 0 else 0
    return replace(record, value=msgspec.json.encode(value), event_time_ms=moved)


@contextmanager
def progress_bar(expected: int | None, console: Console | None = None) -> Iterator[OnSent]:
    """Give an ``on_sent`` that draws a bar, and draws nothing where there is no terminal."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("events", total=expected)
        yield lambda n: progress.advance(task, n)
