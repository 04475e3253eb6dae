"""CatalogFollower: every partition of the item topics -> this worker's catalogue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from models.catalogue import Catalogue
from models.snapshot import load_latest, save_snapshot
from stream.catalog_writer import CatalogWriter, Record
from stream.connection import client_options
from stream.engine.resting import resting
from stream.settings import Settings
from stream.spaces import OtherEncoder, space_of
from stream.topic_names import full_name
from stream.topics import ITEM_EMBEDDINGS, ITEM_NEIGHBOURS, ITEMS

logger = logging.getLogger(__name__)

FOLLOWED = (ITEMS.name, ITEM_EMBEDDINGS.name, ITEM_NEIGHBOURS.name)
SNAPSHOT_FOLDER = "catalogue"

Place = tuple[str, int]  # topic without the settings' prefix, partition

_MAX_RECORDS = 2000
#: Records applied between two breaths of the event loop: some milliseconds.
_SLICE = 32
#: After each slice the loop has this many times as long for the shoppers.
_RESTS_FOR = 3
#: How long the broker may hold an empty fetch, and the rest when it does not hold it.
_WAIT_MS, _REST_S = 250, 0.2
_ENDS_EVERY_S = 5.0
#: Partial correlations are made anew this often at most, and rest so many times what they took.
_CORRELATE_EVERY_S, _CORRELATING_RESTS_FOR = 60.0, 50
_BROKER_ANSWERS_WITHIN_S = 10.0
_STOPS_WITHIN_S = 3.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 5.0
#: Of all items, those that the encode tier is just about to encode.
_MAY_LACK = 0.02
#: A start of the encode tier on a slow machine, and its first batch.
_NO_VECTOR_FOR_S = 60.0
_LOOK_AGAIN_S = 0.2

#: What a broker that is away, or not ready, is seen as. On Python 3.10 the first is no OSError.
_NOT_NOW = (asyncio.TimeoutError, KafkaError, OSError)


class Consumer(Protocol):
    """What is used of an AIOKafkaConsumer without a group."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def position(self, partition: TopicPartition) -> int: ...
    async def beginning_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]: ...
    async def end_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]: ...
    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Record]]: ...


Answer = TypeVar("Answer")


class _StartOver(Exception):
    """The offsets known are not those of the topics as they are now."""


class CatalogFollower:
    """Reads the item topics from the last snapshot on, for as long as the worker lives.

    It belongs to no consumer group: every worker needs every item. All times are seconds of
    ``time.monotonic`` but the snapshots', which come from ``clock`` (epoch ms).
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        encoder_id: str,
        *,
        make_consumer: Callable[[], Consumer] | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        snapshot_every_s: float = 300.0,
    ) -> None:
        self._full_names = {topic: full_name(settings, topic) for topic in FOLLOWED}
        self._names = {full: topic for topic, full in self._full_names.items()}
        self._catalogue = catalogue
        self._encoder_id = encoder_id
        self._writer = CatalogWriter(catalogue, encoder_id, self._names)
        self._make_consumer = make_consumer or (lambda: kafka_consumer(settings))
        self._clock = clock
        self._snapshots: Path = settings.state_dir / SNAPSHOT_FOLDER
        self._snapshot_every_s = snapshot_every_s
        self._partitions = [
            TopicPartition(self._full_names[topic], partition)
            for topic in FOLLOWED
            for partition in range(settings.partitions)
        ]
        self._next: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._saved_next: dict[Place, int] = {}
        self._saved_at = self._ends_at = self._progress_at = time.monotonic()
        self._caught_up = asyncio.Event()
        self._stopping = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._rebuilding: asyncio.Task[bool] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._correlating: asyncio.Task[None] | None = None
        self._correlate_at = time.monotonic()

    # What it shows ------------------------------------------------------------------------------

    @property
    def lag(self) -> dict[str, int]:
        """Return records still to be read by topic, as of the broker's last answer."""
        lag = dict.fromkeys(FOLLOWED, 0)
        for place, end in self._ends.items():
            lag[place[0]] += max(0, end - self._next.get(place, 0))
        return lag

    @property
    def last_progress_monotonic(self) -> float:
        """Return when records were last applied, or the broker last said that there are none."""
        return self._progress_at

    @property
    def refused_vectors(self) -> int:
        """Return how many vectors of another encoder were not taken."""
        return self._writer.n_refused

    @property
    def malformed(self) -> Mapping[str, int]:
        """Return how many records could not be read, by topic."""
        return self._writer.n_malformed

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the last good snapshot and begin to follow; the broker may come later."""
        await asyncio.to_thread(self._restore)
        self._following = asyncio.create_task(self._follow_for_ever(), name="catalogue follower")

    async def caught_up(self) -> None:
        """Wait until all that was in the topics at the start is applied and indexed.

        Raises what ended the following, if it ended before.
        """
        assert self._following is not None, "start first"
        waiting = asyncio.create_task(self._caught_up.wait())
        await asyncio.wait({waiting, self._following}, return_when=asyncio.FIRST_COMPLETED)
        if not self._caught_up.is_set():
            waiting.cancel()
            await self._following
            raise RuntimeError("the catalogue follower was stopped before it had caught up")

    def require_own_vectors(self) -> None:
        """Raise OtherEncoder when there are vectors of items, and none of our encoder."""
        if self.refused_vectors and not self._catalogue.n_vectors:
            raise OtherEncoder(
                f"all of {self.refused_vectors} item vectors",
                space_of(self._encoder_id, self._catalogue.dim),
                " and ".join(sorted(self._writer.foreign)),
            )

    def require_no_foreign_vectors(self, what: str) -> None:
        """Raise OtherEncoder, of ``what``, when any item vector met was another encoder's."""
        if self._writer.foreign:
            others = " and ".join(sorted(self._writer.foreign))
            raise OtherEncoder(
                what,
                space_of(self._encoder_id, self._catalogue.dim),
                f"no name, and among the item vectors some of {others}",
            )

    async def vectors_there(
        self, on_wait: Callable[[str], None], patience_s: float = _NO_VECTOR_FOR_S
    ) -> None:
        """Wait until nearly all items have a vector of our encoder.

        An act on an item without one waits in its user's row, which is short: of a state that is
        built anew while the catalogue is still being encoded, much would be lost. ``on_wait`` is
        told what is waited for. Goes on when no vector has come for ``patience_s``.
        """
        n_missing, since = self._catalogue.n_without_vector, time.monotonic()
        while n_missing > _MAY_LACK * self._catalogue.n_described:
            on_wait(
                f"{n_missing} of {self._catalogue.n_described} items have no vector of encoder "
                f"{self._encoder_id}, {self.refused_vectors} of another were left out"
            )
            await asyncio.sleep(_LOOK_AGAIN_S)
            before, n_missing = n_missing, self._catalogue.n_without_vector
            if n_missing < before:
                since = time.monotonic()
            elif time.monotonic() - since > patience_s:
                logger.warning("going on: %d items have no vector, and none comes", n_missing)
                return

    async def watch(self) -> None:
        """Wait until it is stopped; raise what ended the following before that."""
        assert self._following is not None, "start first"
        await asyncio.shield(self._following)

    async def stop(self) -> None:
        """Stop following and write a snapshot of what has been read."""
        self._stopping.set()
        if self._following is not None:
            # It may be waiting for a broker that is away.
            await asyncio.wait({self._following}, timeout=_STOPS_WITHIN_S)
            self._following.cancel()
        at_work = (self._following, self._rebuilding, self._saving, self._correlating)
        tasks = [task for task in at_work if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._caught_up.is_set() and self._next != self._saved_next:
            await self._save(dict(self._next))

    # Following ----------------------------------------------------------------------------------

    async def _follow_for_ever(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._stopping.is_set():
            try:
                async with self._consumer() as consumer:
                    await self._take_place(consumer)
                    retry_s = _FIRST_RETRY_S
                    await self._follow(consumer)
            except (_StartOver, OffsetOutOfRangeError) as error:
                await self._start_over(error)
            except _NOT_NOW as error:
                logger.warning("catalogue: no broker, again in %.1f s: %r", retry_s, error)
                await self._sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Consumer]:
        consumer = self._make_consumer()
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    async def _take_place(self, consumer: Consumer) -> None:
        """Go to where reading stopped, or to the beginning."""
        consumer.assign(self._partitions)
        begins = await _soon(consumer.beginning_offsets(self._partitions))
        await self._ask_ends(consumer)
        for tp in self._partitions:
            begin, place = begins[tp], self._place(tp)
            # A compacted topic begins at 0 whatever was compacted away; later, records are lost.
            if self._next.setdefault(place, begin) < begin:
                raise _StartOver(f"{place} begins at {begin}, after {self._next[place]}")
            consumer.seek(tp, self._next[place])

    async def _follow(self, consumer: Consumer) -> None:
        targets = dict(self._ends)
        while not self._stopping.is_set():
            batches = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_MAX_RECORDS)
            if batches:
                await self._apply(list(_flat(batches)))
                self._progress_at = time.monotonic()
            await self._advance(consumer)
            if not self._caught_up.is_set() and self._reached(targets):
                await self._finish_catching_up()
            await self._keep_house(consumer)

    async def _apply(self, records: Sequence[Record]) -> None:
        if not self._caught_up.is_set():
            await asyncio.to_thread(self._writer.apply, records)
            return
        # A thread would take the interpreter from the ranking at each of its array operations,
        # 5 ms a time, and hold the catalogue's lock meanwhile.
        for first in range(0, len(records), _SLICE):
            started = time.monotonic()
            self._writer.apply(records[first : first + _SLICE])
            await asyncio.sleep(_RESTS_FOR * (time.monotonic() - started))

    async def _advance(self, consumer: Consumer) -> None:
        # The consumer's position, not the last record's: it goes past transaction markers too.
        for tp in self._partitions:
            self._next[self._place(tp)] = await consumer.position(tp)

    def _reached(self, targets: Mapping[Place, int]) -> bool:
        return all(self._next[place] >= end for place, end in targets.items())

    async def _finish_catching_up(self) -> None:
        if self._catalogue.rebuild_due:
            # The real one, minutes for a million items, follows in the background.
            await asyncio.to_thread(self._catalogue.rebuild, True)
        if self._catalogue.correlate_due:
            # Lists made without them would be other ones.
            await self._correlate()
        self._caught_up.set()
        logger.info(
            "catalogue caught up: items=%d vectors=%d refused=%d",
            len(self._catalogue),
            self._catalogue.n_vectors,
            self.refused_vectors,
        )

    async def _keep_house(self, consumer: Consumer) -> None:
        if time.monotonic() - self._ends_at >= _ENDS_EVERY_S:
            await self._ask_ends(consumer)
        if not self._caught_up.is_set():
            return
        if self._rebuilding is not None and self._rebuilding.done():
            self._rebuilding.result()  # a failure is a bug: it ends the following
            self._rebuilding = None
        if self._rebuilding is None and self._catalogue.rebuild_due:
            self._rebuilding = asyncio.create_task(asyncio.to_thread(self._catalogue.rebuild))
        if self._correlating is not None and self._correlating.done():
            self._correlating.result()
            self._correlating = None
        is_rested = time.monotonic() >= self._correlate_at
        if self._correlating is None and is_rested and self._catalogue.correlate_due:
            self._correlating = asyncio.create_task(self._correlate())
        if self._saving is not None and self._saving.done():
            self._saving.result()
            self._saving = None
        due = time.monotonic() - self._saved_at >= self._snapshot_every_s
        if due and self._saving is None and self._next != self._saved_next:
            # The offsets of now: what is applied while it is written will be applied again.
            self._saving = asyncio.create_task(self._save(dict(self._next)))

    async def _correlate(self) -> None:
        started = time.monotonic()
        await asyncio.to_thread(self._catalogue.correlate)
        took_s = time.monotonic() - started
        rest_s = max(_CORRELATE_EVERY_S, _CORRELATING_RESTS_FOR * took_s)
        self._correlate_at = time.monotonic() + rest_s

    async def _ask_ends(self, consumer: Consumer) -> None:
        # aiokafka hides a broker that has gone from getmany; this is where it shows.
        ends = await _soon(consumer.end_offsets(self._partitions))
        self._ends = {self._place(tp): end for tp, end in ends.items()}
        self._ends_at = time.monotonic()
        for place, end in self._ends.items():
            if self._next.get(place, 0) > end:
                raise _StartOver(f"{place} ends at {end}, before {self._next[place]}")
        if not any(self.lag.values()):
            self._progress_at = self._ends_at

    async def _start_over(self, reason: Exception) -> None:
        logger.warning("catalogue starts over from the beginning: %s", reason)
        self._caught_up.clear()
        self._next.clear()
        self._saved_next.clear()
        await asyncio.to_thread(self._catalogue.clear)
        await self._sleep(_FIRST_RETRY_S)

    # Snapshots ----------------------------------------------------------------------------------

    def _restore(self) -> None:
        loaded = load_latest(self._snapshots, dim=self._catalogue.dim, encoder_id=self._encoder_id)
        if loaded is None:
            return
        state, manifest = loaded
        if {offset.topic for offset in manifest.offsets} != {tp.topic for tp in self._partitions}:
            logger.warning("snapshot refused: it is of other topics: %s", manifest.offsets)
            return
        self._catalogue.restore(state)
        self._next = {(self._names[o.topic], o.partition): o.offset for o in manifest.offsets}
        self._saved_next = dict(self._next)
        logger.info("catalogue restored: vectors=%d", manifest.n_vectors)

    async def _save(self, offsets: dict[Place, int]) -> None:
        self._saved_at = time.monotonic()
        try:
            await asyncio.to_thread(self._write_snapshot, offsets)
        except OSError:
            # A full disk slows the next start; it is no reason to stop recommending.
            logger.exception("catalogue snapshot not written: folder=%s", self._snapshots)
        else:
            self._saved_next = offsets

    def _write_snapshot(self, offsets: dict[Place, int]) -> None:
        save_snapshot(
            self._snapshots,
            self._catalogue.state(),
            encoder_id=self._encoder_id,
            offsets={(self._full_names[t], number): n for (t, number), n in offsets.items()},
            created_ms=self._clock(),
        )

    # Small things -------------------------------------------------------------------------------

    def _place(self, tp: TopicPartition) -> Place:
        return self._names[tp.topic], tp.partition

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until stop."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _flat(batches: Mapping[TopicPartition, Sequence[Record]]) -> Iterator[Record]:
    for records in batches.values():
        yield from records


async def _soon(answer: Awaitable[Answer]) -> Answer:
    # aiokafka may wait for ever for the offsets of a partition that does not exist.
    return await asyncio.wait_for(answer, _BROKER_ANSWERS_WITHIN_S)


def kafka_consumer(settings: Settings) -> Consumer:
    """Return what follows on a broker: no group, and no going on from an offset that is gone."""
    consumer: Any = AIOKafkaConsumer(
        **client_options(settings),
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=_WAIT_MS,
        # An offset that is gone must be seen: going on elsewhere would leave removed items in.
        auto_offset_reset="none",
    )
    consumer._client.send = resting(consumer._client.send, _REST_S)
    return cast(Consumer, consumer)
