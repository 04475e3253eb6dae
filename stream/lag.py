"""How far a consumer group is behind, from the broker's end offsets, and whether it moves.

Asked from outside the group: a worker that hangs cannot report itself healthy this way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream.connection import client_options
from stream.settings import Settings
from stream.topic_names import FullNames

logger = logging.getLogger(__name__)

Place = tuple[str, int]  # topic without the settings' prefix, partition

#: A lag of at most this many offsets may be nothing but transaction markers: then look.
MARKERS_AT_MOST = 64
_NO_OFFSET = -1


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition as the broker saw it.

    ``lag`` counts offsets still to be committed; ``trimmed`` those that were deleted before the
    group committed them: they are lost. ``commit_age_s`` is the time for which there has been lag
    and no commit.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    lag: int
    trimmed: int
    commit_age_s: float


class OffsetsClient(Protocol):
    """What the probe asks a broker; never a member of the group."""

    async def committed(self, group: str, places: Sequence[Place]) -> dict[Place, int]:
        """Return the next offset per partition that the group has committed; others are absent."""

    async def bounds(self, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """Return (first kept offset, next offset to be written) per partition."""

    async def nothing_to_read(self, place: Place, start: int, end: int) -> bool:
        """Return whether no record lies in [start, end): only transaction markers, or gaps."""


class CommitAges:
    """Per partition: since when there has been lag without a commit."""

    def __init__(self) -> None:
        self._since: dict[Place, tuple[int | None, float]] = {}

    def update(self, place: Place, committed: int | None, lag: int, now_s: float) -> float:
        """Return the age in seconds; 0 without lag, or when the committed offset has changed."""
        known = self._since.get(place)
        if lag == 0 or known is None or known[0] != committed:
            self._since[place] = (committed, now_s)
            return 0.0
        return now_s - known[1]


class LagProbe:
    """Asks the broker every few seconds and hands each reading to ``on_reading``."""

    def __init__(
        self,
        client: OffsetsClient,
        group: str,
        places: Callable[[], Sequence[Place]],
        on_reading: Callable[[Sequence[PartitionLag]], None],
        clock: Callable[[], float],
    ) -> None:
        """``places`` names the partitions to ask for; ``clock`` gives seconds, monotonic."""
        self._client, self._group, self._places = client, group, places
        self._on_reading, self._clock = on_reading, clock
        self._ages = CommitAges()
        self._empty: dict[Place, tuple[int, int]] = {}

    async def read(self) -> list[PartitionLag]:
        """Return one reading; raise what the client raises."""
        places = list(self._places())
        # Committed first: an end offset that is newer can only make the lag larger, not negative.
        committed = await self._client.committed(self._group, places)
        bounds = await self._client.bounds(places)
        return [
            await self._reading(place, committed.get(place), *bounds[place])
            for place in places
            if place in bounds
        ]

    async def run(self, interval_s: float = 5.0, timeout_s: float = 10.0) -> None:
        """Read for ever; a failure is logged once and the next reading tried."""
        failing = False
        while True:
            try:
                reading = await asyncio.wait_for(self.read(), timeout_s)
            except (KafkaError, OSError, asyncio.TimeoutError) as error:
                level = logging.DEBUG if failing else logging.WARNING
                logger.log(level, "lag unknown: group=%s error=%r", self._group, error)
                failing = True
            else:
                if failing:
                    logger.info("lag known again: group=%s", self._group)
                failing = False
                self._on_reading(reading)
            await asyncio.sleep(interval_s)

    async def _reading(
        self, place: Place, committed: int | None, begin: int, end: int
    ) -> PartitionLag:
        start = begin if committed is None else max(begin, committed)
        lag = max(0, end - start)
        trimmed = 0 if committed is None else max(0, begin - committed)
        now_s = self._clock()
        age_s = self._ages.update(place, committed, lag, now_s)
        if age_s and lag <= MARKERS_AT_MOST and await self._is_empty(place, start, end):
            lag = 0
            age_s = self._ages.update(place, committed, lag, now_s)
        return PartitionLag(*place, begin, end, committed, lag, trimmed, age_s)

    async def _is_empty(self, place: Place, start: int, end: int) -> bool:
        # A producer's transaction ends with a marker that no consumer ever commits: without this
        # look, a shop that writes in transactions would have a lag of 1, and a stall, for ever.
        if self._empty.get(place) == (start, end):
            return True
        empty = await self._client.nothing_to_read(place, start, end)
        if empty:
            self._empty[place] = (start, end)
        return empty


class KafkaOffsets:
    """OffsetsClient on aiokafka, without group membership."""

    def __init__(self, settings: Settings, request_timeout_ms: int = 5000) -> None:
        options = {**client_options(settings), "request_timeout_ms": request_timeout_ms}
        self._full_names = FullNames(settings)
        self._admin = AIOKafkaAdminClient(**options)
        self._consumer = AIOKafkaConsumer(
            **options, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=100
        )

    async def start(self) -> None:
        """Connect; raise KafkaError when there is no broker."""
        try:
            await self._admin.start()
            await self._consumer.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect; harmless when not connected."""
        await self._consumer.stop()
        await self._admin.close()

    async def committed(self, group: str, places: Sequence[Place]) -> dict[Place, int]:
        """See OffsetsClient."""
        wanted = self._wanted(places)
        if not wanted:
            return {}
        found = await self._admin.list_consumer_group_offsets(group, partitions=list(wanted))
        return {
            wanted[partition]: value.offset
            for partition, value in found.items()
            if value.offset != _NO_OFFSET
        }

    async def bounds(self, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """See OffsetsClient."""
        wanted = self._wanted(places)
        if not wanted:
            return {}
        begin, end = await asyncio.gather(
            self._consumer.beginning_offsets(list(wanted)), self._consumer.end_offsets(list(wanted))
        )
        return {place: (begin[partition], end[partition]) for partition, place in wanted.items()}

    async def nothing_to_read(self, place: Place, start: int, end: int) -> bool:
        """See OffsetsClient."""
        (partition,) = self._wanted([place])
        self._consumer.assign([partition])
        self._consumer.seek(partition, start)
        try:
            records = await self._consumer.getmany(partition, timeout_ms=300, max_records=1)
            return not records and await self._consumer.position(partition) >= end
        finally:
            self._consumer.unsubscribe()

    def _wanted(self, places: Sequence[Place]) -> dict[TopicPartition, Place]:
        return {
            TopicPartition(self._full_names[topic], number): (topic, number)
            for topic, number in places
        }
