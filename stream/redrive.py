"""``dead-letters`` read back: which there are, and copying them to where they came from.

A redrive leaves a note in the same topic (no key, an empty value, one header: which offsets), so
that a second run sends nothing twice. A crash between the copy and its note does repeat a copy;
event ids make that harmless.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream import dead_letters as dlq
from stream.connection import client_options
from stream.delivery import Headers, Output, Sender
from stream.latest import partitions_of
from stream.settings import Settings
from stream.topic_names import full_name
from stream.topics import DEAD_LETTERS, TOPICS

log = logging.getLogger(__name__)

REDRIVEN = "dlq.redriven"
BATCH = 500
STALLED_S = 30.0

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter; ``partition``, ``offset`` and ``timestamp_ms`` are those in its topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    redriven: bool = False

    def fact(self, header: str) -> str:
        """Return the text of a ``dlq.`` header, empty when it is missing."""
        return (dict(self.headers).get(header) or b"").decode(errors="replace")

    @property
    def topic(self) -> str:
        return self.fact(dlq.TOPIC)

    @property
    def attempts(self) -> int:
        return dlq.attempt_of(self.headers)

    @property
    def truncated(self) -> bool:
        return bool(self.fact(dlq.TRUNCATED))

    @property
    def source(self) -> str:
        """Where the message lay: topic/partition/offset."""
        return f"{self.topic}/{self.fact(dlq.PARTITION)}/{self.fact(dlq.OFFSET)}"

    def original(self) -> Output:
        """Return the message as it came, marked as the next attempt.

        A keyed topic finds its partition by the key, which also mends a wrongly placed message;
        derived ones are addressed by partition.
        """
        attempt = (dlq.ATTEMPTS, str(self.attempts + 1).encode())
        partition = dict(self.headers).get(dlq.PARTITION) or b""
        # Of bytes only ASCII's digits count; Python refuses to read the longest numbers.
        is_number = partition.isdigit() and len(partition) < 10
        addressed = _ROLES.get(self.topic) == "derived" and is_number
        return Output(
            self.topic,
            self.key,
            self.value,
            partition=int(partition) if addressed else None,
            headers=(*dlq.without_dlq(self.headers), attempt),
        )


_ROLES = {spec.name: spec.role for spec in TOPICS if spec is not DEAD_LETTERS}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: those that fit every field given.

    ``reason`` is an error class or a part of the error message; ``first`` and ``last`` bound the
    offsets in ``dead-letters``, mostly used with ``partition``.
    """

    topic: str | None = None
    reason: str | None = None
    stage: str | None = None
    partition: int | None = None
    first: int | None = None
    last: int | None = None

    def fits(self, letter: DeadLetter) -> bool:
        reason = (self.reason or "").lower()
        return (
            self.topic in (None, letter.topic)
            and self.stage in (None, letter.fact(dlq.STAGE))
            and self.partition in (None, letter.partition)
            and (self.first is None or letter.offset >= self.first)
            and (self.last is None or letter.offset <= self.last)
            and (
                reason == letter.fact(dlq.ERROR_CLASS).lower()
                or reason in letter.fact(dlq.ERROR_MESSAGE).lower()
            )
        )


class Note(msgspec.Struct, frozen=True):
    """Dead letters that were redriven: offsets in one partition of ``dead-letters``."""

    partition: int
    offsets: list[int]


_notes = msgspec.json.Decoder(Note)


@dataclass
class RedriveReport:
    """What a redrive did: copies by topic, and what it left alone by reason."""

    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    dry_run: bool = False


async def list_dead_letters(
    settings: Settings, selection: Selection = Selection(), limit: int = 100
) -> list[DeadLetter]:
    """Return the newest ``limit`` dead letters that fit, oldest first."""
    done = await _redriven(settings)
    newest: list[tuple[int, int, int, DeadLetter]] = []
    async for letter in _read(settings):
        if selection.fits(letter):
            heapq.heappush(newest, (letter.timestamp_ms, letter.partition, letter.offset, letter))
            if len(newest) > limit:
                heapq.heappop(newest)
    letters = [letter for *_, letter in sorted(newest)]
    return [replace(one, redriven=(one.partition, one.offset) in done) for one in letters]


async def redrive(
    settings: Settings,
    sender: Sender,
    selection: Selection = Selection(),
    *,
    limit: int | None = None,
    dry_run: bool = False,
    again: bool = False,
) -> RedriveReport:
    """Copy the dead letters that fit back to their topics, byte for byte.

    Left alone, and counted: what was redriven before (unless ``again``), what was cut, and what
    names no topic of ours. ``dry_run`` sends nothing.
    """
    done = frozenset() if again else await _redriven(settings)
    report = RedriveReport(dry_run=dry_run)
    batch: list[DeadLetter] = []
    async with aclosing(_read(settings)) as letters:
        async for letter in letters:
            if limit is not None and report.sent.total() >= limit:
                break
            if not selection.fits(letter):
                continue
            if obstacle := _obstacle(letter, done):
                report.skipped[obstacle] += 1
                continue
            report.sent[letter.topic] += 1
            batch.append(letter)
            if len(batch) == BATCH:
                await _copy(sender, batch, dry_run)
                batch = []
    await _copy(sender, batch, dry_run)
    return report


def _obstacle(letter: DeadLetter, done: Collection[Place]) -> str | None:
    if (letter.partition, letter.offset) in done:
        return "redriven before"
    if letter.truncated:
        return "was cut, so a copy would not be the message"
    if letter.topic not in _ROLES:
        return "names no topic of ours"
    return None


async def _copy(sender: Sender, batch: Sequence[DeadLetter], dry_run: bool) -> None:
    if dry_run or not batch:
        return
    await sender.send([letter.original() for letter in batch])
    by_partition: dict[int, list[int]] = {}
    for letter in batch:
        by_partition.setdefault(letter.partition, []).append(letter.offset)
    await sender.send([_note(*places) for places in by_partition.items()])


def _note(partition: int, offsets: list[int]) -> Output:
    text = msgspec.json.encode(Note(partition, offsets))
    return Output(DEAD_LETTERS.name, None, b"", partition=partition, headers=((REDRIVEN, text),))


async def _redriven(settings: Settings) -> set[Place]:
    """Return the places of all dead letters that a note says were redriven."""
    done: set[Place] = set()
    async for record in _records(settings):
        done |= places_in(record.headers)
    return done


def places_in(headers: Iterable[tuple[str, bytes | None]]) -> set[Place]:
    """Return the places that a note names: none where there is no note, or none to be read."""
    places: set[Place] = set()
    for name, text in headers:
        if name != REDRIVEN:
            continue
        try:
            note = _notes.decode(text or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Not ours. What it may have named is at worst copied again, which is harmless.
            log.warning("a note of a redrive cannot be read: %s", error)
            continue
        places.update((note.partition, offset) for offset in note.offsets)
    return places


async def _read(settings: Settings) -> AsyncGenerator[DeadLetter, None]:
    async for record in _records(settings):
        if any(name == REDRIVEN for name, _ in record.headers):
            continue
        yield DeadLetter(
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(record.headers),
        )


async def _records(settings: Settings) -> AsyncGenerator[Any, None]:
    """Yield what ``dead-letters`` holds now, in order within each partition, outside any group.

    Raises LookupError when there is no such topic, TimeoutError when the broker stops answering.
    """
    topic = full_name(settings, DEAD_LETTERS.name)
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, n) for n in await partitions_of(consumer, topic)]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        open_places = {place for place in places if await consumer.position(place) < ends[place]}
        heard_s = time.monotonic()
        while open_places:
            for place, records in (await consumer.getmany(*open_places, timeout_ms=200)).items():
                heard_s = time.monotonic()
                for record in records:
                    if record.offset < ends[place]:
                        yield record
            open_places = {p for p in open_places if await consumer.position(p) < ends[p]}
            if time.monotonic() - heard_s > STALLED_S:
                raise TimeoutError(f"nothing of {topic} has come for {STALLED_S:.0f} s")
    finally:
        await consumer.stop()
