"""EngineConsumer: hands records to the streams and commits no further than what came of them.

Faust's own consumer may commit past an event that no stream has seen, and so lose it:

- It drops fetched records when the flow stops or a generation ends, and goes back to the committed
  offsets only sometimes; a partition without a committed offset never goes back.
- ``_new_offset`` takes one missing event at the head for none (``> 1``, though the committed offset
  is the next one to read), and none is missed before the first commit.
- ``_add_gap`` counts the event behind a gap as acknowledged, together with those before it, which
  compaction has removed, or which were dropped.

Here the order of handing over is kept, and only its acknowledged beginning is committed. Records
that are not handed over make the consumer go back to what is committed. They are handed to a
stream in runs (see runs.py), without the four tasks that Faust makes for each.

Those of a changelog go to the recovery together. What was fetched of one, and then dropped because
of a rebalance, is fetched again: behind a hole a table would be taken for whole.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.futures import notify

from stream.engine.conductor import EngineConductor
from stream.engine.recovery import EngineTables
from stream.engine.runs import RUN_RECORDS, Part, Run, RunQueue

#: How long a fetch waits for records.
_FETCH_S = 1.0
#: How the end of fetching shows.
_STOPPED: tuple[type[BaseException], ...] = (
    *driver.Consumer.consumer_stopped_errors,
    asyncio.CancelledError,
)

#: A broker that is away, or a group that is rebalancing.
_NOT_NOW = (KafkaError, OSError, asyncio.TimeoutError)

Records = Mapping[TP, Any]


class Fetch(NamedTuple):
    """What must not change between fetching records and handing them over."""

    n_seeks: int
    n_changelog_seeks: int
    generation: int

    def of_sources(self) -> tuple[int, int]:
        return self.n_seeks, self.generation

    def of_changelogs(self) -> tuple[int, int]:
        return self.n_changelog_seeks, self.generation


class EngineConsumer(driver.Consumer):
    """See above. ``_expected`` is the next offset to hand over, by partition."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._delivered: defaultdict[TP, deque[Run]] = defaultdict(deque)
        self._expected: dict[TP, int] = {}
        self._gaps: dict[TP, tuple[int, int]] = {}
        self._n_seeks = 0
        self._n_changelog_seeks = 0
        self._is_behind = False
        #: The first record of each changelog that was fetched and not given to the recovery.
        self._left_out: dict[TP, int] = {}

    # Position -----------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Go back to what is committed: whatever was handed over since will be so again."""
        self._n_seeks += 1  # what is being fetched now may be of before or of after
        await super().perform_seek()
        self._n_seeks += 1
        self._is_behind = False
        # What was handed over before is no longer waited for, and its being done says nothing.
        self._delivered.clear()
        self._expected = {
            tp: committed for tp, committed in self._committed_offset.items() if committed
        }

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Go to some places; of a changelog, what is being fetched now is of before or of after."""
        of_changelogs = not all(map(self._is_source, partitions))
        self._n_changelog_seeks += of_changelogs
        await super().seek_wait(partitions)
        self._n_changelog_seeks += of_changelogs

    async def seek_back(self, offsets: Mapping[TP, int]) -> None:
        """Have the thread go back where the next record to be fetched lies behind one of these."""
        await cast(Any, self._thread).seek_back(offsets)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._delivered.pop(tp, None)
            self._expected.pop(tp, None)

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit, the next one to read; None when nothing new is done."""
        delivered, offset = self._delivered[tp], None
        while delivered:
            run = delivered[0]
            offset = run.committable() or offset
            if not run.is_done:
                break
            delivered.popleft()
        return offset

    def track(self, part: Part) -> None:
        """Note that a part of a run is in progress."""
        self._unacked_messages.add(cast(Any, part))

    def done(self, part: Part) -> None:
        """Note that a part of a run is done, and may be committed with all before it."""
        part.acked = True
        part.run.done(len(part.records))
        self._unacked_messages.discard(cast(Any, part))
        self._acked.setdefault(part.run.tp, [])  # where Faust looks for what to commit
        self._n_acked += len(part.records)
        notify(self._waiting_for_ack)

    # Handing over -------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand over what is fetched until the fetcher stops."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                try:
                    await self._fetch_and_hand_over()
                except _NOT_NOW as error:
                    # The group may be rebalancing, which ends with going back too.
                    self.log.warning("reading again in %.0f s: %r", _FETCH_S, error)
                    self._is_behind = True
                    await asyncio.sleep(_FETCH_S)
        except _STOPPED:
            if not self.transport.app.should_stop:
                raise

    async def _fetch_and_hand_over(self) -> None:
        if self._is_behind and self.flow_active:
            self.log.info("fetched records were not handed over: back to the committed offsets")
            await self.perform_seek()
        if self._left_out:
            await self.seek_back(self._left_out)
            self._left_out = {}
        fetch = self._now()
        records, _ = await self._wait_next_records(_FETCH_S)
        await asyncio.sleep(0)
        if records and not self.should_stop:
            whole = await self._hand_over(records, fetch)
            self._is_behind = self._is_behind or not whole

    async def _hand_over(self, records: Records, fetch: Fetch) -> bool:
        """Hand records to their streams; False when some were not."""
        for tp in records:
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        sources = {tp: of_it for tp, of_it in records.items() if self._is_source(tp)}
        for tp in records.keys() - sources.keys():
            await self._restore(tp, records[tp], fetch)
        if self._is_void(fetch):
            return False
        active = self._get_active_partitions()
        unread, whole = await self._gapped(sources), True
        for tp, records_of_run in _in_runs(sources):
            await asyncio.sleep(0)
            if self._is_void(fetch):
                return False
            if tp in unread:
                continue
            if tp not in active and tp not in self._buffered_partitions:
                # Not one behind it either, even if the partition is resumed meanwhile.
                unread.add(tp)
                whole = False
            elif not await self._deliver(tp, records_of_run, fetch):
                return False
        return whole

    def _is_void(self, fetch: Fetch) -> bool:
        """True when what was fetched may not be handed over: it may be of another place by now."""
        return self._now().of_sources() != fetch.of_sources() or not self.flow_active

    def _now(self) -> Fetch:
        return Fetch(self._n_seeks, self._n_changelog_seeks, self.app.consumer_generation_id)

    async def _gapped(self, records: Records) -> set[TP]:
        """Return the partitions whose records do not follow those before, and read them again.

        What the broker gives at once has no holes but those of compaction. A hole between two
        fetches that is still there when its place is read again is one too; otherwise records
        had been fetched that never came here.
        """
        gapped = set()
        for tp, of_it in records.items():
            expected = self._expected.get(tp)
            if expected is None or not of_it or of_it[0].offset <= expected:
                continue
            gap = expected, of_it[0].offset
            if self._gaps.get(tp) == gap:
                await self._note_gap(tp, expected)
                continue
            self.log.info("%r: expected offset %d, got %d: reading again", tp, *gap)
            self._gaps[tp] = gap
            gapped.add(tp)
            await self.seek_wait({tp: expected})
        return gapped

    async def _restore(self, tp: TP, records: Sequence[Any], fetch: Fetch) -> None:
        """Give a changelog's records to the recovery, which has set where to read from."""
        is_void = self._now().of_changelogs() != fetch.of_changelogs()
        if is_void or tp not in self._get_active_partitions():
            first = records[0].offset
            self._left_out[tp] = min(first, self._left_out.get(tp, first))
            return
        read_from = self._read_offset[tp] or 0
        new = [record for record in records if record.offset >= read_from]
        await cast(EngineTables, self.app.tables).recovery.restore(tp, new)
        self._read_offset[tp] = records[-1].offset

    def _is_source(self, tp: TP) -> bool:
        return bool(self.app.topics.acks_enabled_for(tp.topic))

    async def _deliver(self, tp: TP, records: Sequence[Any], fetch: Fetch) -> bool:
        """Hand records over as a run; False when they became void before they were taken."""
        records = records[bisect_left(records, self._expected.get(tp, 0), key=_offset) :]
        if not records:
            return True
        conductor = cast(EngineConductor, self.app.topics)
        queue = conductor.queue_of(tp)
        # A plain TP: aiokafka's is equal to it, but Faust asserts the type.
        run = Run(TP(tp.topic, tp.partition), records, self.app.consumer_generation_id)
        while not conductor.take(run, queue):
            await self._wait_for_room(queue)
            if self._is_void(fetch):
                return False
        self._expected[tp] = records[-1].offset + 1
        self._delivered[tp].append(run)
        if self._commit_every is not None and self._n_acked >= self._commit_every:
            self._n_acked = 0
            await self.commit()
        return True

    async def _note_gap(self, tp: TP, expected: int) -> None:
        """Report what was deleted before it was read; compaction and markers leave gaps too."""
        begin = (await self.earliest_offsets(tp)).get(tp, 0)
        if begin > expected:
            self.app.on_events_lost(tp, begin - expected)  # type: ignore[attr-defined]

    async def _wait_for_room(self, queue: RunQueue) -> None:
        """Wait until a stream's buffer has room, or the flow is stopped."""
        waits = [
            asyncio.ensure_future(wait) for wait in (self._room(queue), self.suspend_flow.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _room(self, queue: RunQueue) -> None:
        await self.app.flow_control.acquire()
        await queue.room()


def _offset(record: Any) -> int:
    return int(record.offset)


def _in_runs(sources: Records) -> Iterator[tuple[TP, Sequence[Any]]]:
    """Yield the records of partitions in runs, the partitions by turns."""
    begin, left = 0, dict(sources)
    while left:
        for tp, records in left.items():
            yield tp, records[begin : begin + RUN_RECORDS]
        begin += RUN_RECORDS
        left = {tp: records for tp, records in left.items() if len(records) > begin}


class CommittedPositions:
    """Goes back to the committed offsets in the consumer's thread: sources only, and all of them.

    aiokafka's ``seek_to_committed`` leaves a partition without a committed offset where it is,
    behind records that no stream has seen, and moves changelogs that are being read.
    """

    def __init__(self, consumer: Any, is_source: Callable[[str], bool]) -> None:
        self._consumer = consumer
        self._is_source = is_source

    async def read(self) -> dict[TP, int | None]:
        """Return the committed offset of each source partition, None where there is none."""
        sources = [tp for tp in self._consumer.assignment() if self._is_source(tp.topic)]
        committed = await asyncio.gather(*(self._consumer.committed(tp) for tp in sources))
        return {TP(*tp): offset for tp, offset in zip(sources, committed, strict=True)}

    async def seek(self) -> dict[TP, int]:
        """Return the committed offset of each source partition, 0 where there is none."""
        committed = await self.read()
        for tp, offset in committed.items():
            if offset is None:
                await self._consumer.seek_to_beginning(TopicPartition(*tp))
            else:
                self._consumer.seek(TopicPartition(*tp), offset)
        return {tp: offset or 0 for tp, offset in committed.items()}


async def seek_back(consumer: Any, offsets: Mapping[TP, int]) -> None:
    """Go back, in the consumer's thread, where it stands behind one of these offsets.

    Never forward: the recovery may have gone further back meanwhile. Of a partition that is not
    assigned any more nothing is to be read.
    """
    for tp, offset in offsets.items():
        partition = TopicPartition(*tp)
        # Nothing else runs in the thread between the two.
        if partition in consumer.assignment() and await consumer.position(partition) > offset:
            consumer.seek(partition, offset)
