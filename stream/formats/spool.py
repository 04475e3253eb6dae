"""Spool: events in any order in, checked records in time order out, in bounded memory."""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from types import TracebackType

import msgspec
import numpy as np
from msgspec import Struct

from stream.core.events import PARSERS, BadEvent, Interaction, Item, Review
from stream.formats.source import ReadReport, Record

_TOPICS = ("clickstream", "reviews")
DUPLICATE = "duplicate"


class Spool:
    """Events on disk, 15 bytes of each in memory (some 100 while they are given out).

    What the topics' own parser refuses is dropped with its reason, so a reader never makes a
    dead letter. Of events that are the same to the byte, one is kept.
    """

    def __init__(self, report: ReadReport) -> None:
        self._report = report
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._times = array("q")
        self._lengths = array("I")
        self._key_lengths = array("H")
        self._topics = array("B")

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, event: Interaction | Review) -> None:
        """Keep an event, or drop and count it if it is not a valid one."""
        topic = 0 if isinstance(event, Interaction) else 1
        if (value := checked(_TOPICS[topic], event, self._report)) is None:
            return
        key = event.user_id.encode()
        self._file.write(key + value)
        self._times.append(event.event_time_ms)
        self._lengths.append(len(key) + len(value))
        self._key_lengths.append(len(key))
        self._topics.append(topic)

    def close_intake(self) -> None:
        """Tell the report the span of time and the number of events to come."""
        self._report.expected = len(self._times)
        if self._times:
            times = np.frombuffer(self._times, np.int64)
            self._report.first_ms, self._report.last_ms = int(times.min()), int(times.max())

    def in_time_order(self) -> Iterator[Record]:
        """Yield the events, oldest first; those of the same time in the order they came."""
        if not self._times:
            return
        times = np.frombuffer(self._times, np.int64)
        ends = np.cumsum(np.frombuffer(self._lengths, np.uint32), dtype=np.int64)
        order = np.argsort(times, kind="stable")
        self._file.flush()
        now, seen = -1, set[bytes]()
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as blobs:
            for row, end in zip(order.tolist(), ends[order].tolist(), strict=True):
                blob = blobs[end - self._lengths[row] : end]
                time_ms = self._times[row]
                if time_ms != now:
                    now, seen = time_ms, set()
                if blob in seen:
                    self._report.dropped[DUPLICATE] += 1
                    continue
                seen.add(blob)
                split, topic = self._key_lengths[row], _TOPICS[self._topics[row]]
                self._report.records[topic] += 1
                yield Record(topic, blob[:split], blob[split:], time_ms)


def checked(topic: str, event: Struct, report: ReadReport) -> bytes | None:
    """Return the bytes of an event, or None (counted) when its topic's parser refuses it."""
    try:
        value = msgspec.json.encode(event)
        PARSERS[topic](value)
    except (BadEvent, UnicodeEncodeError) as error:
        reason = str(error) if isinstance(error, BadEvent) else "not UTF-8"
        report.dropped[f"{topic}: {reason}"] += 1
        return None
    return value


def catalogue(items: Iterable[Item], report: ReadReport) -> Iterator[Record]:
    """Yield the items as records, dropping what the parser refuses."""
    for item in items:
        if (value := checked("items", item, report)) is not None:
            report.records["items"] += 1
            yield Record("items", item.item_id.encode(), value, item.updated_ms)
