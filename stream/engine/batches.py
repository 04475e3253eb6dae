"""BatchStream: whole micro-batches of raw records, acknowledged only when they are done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import faust

from stream.delivery import SourceMessage
from stream.engine.runs import Part, Run

log = logging.getLogger(__name__)


class BatchStream(faust.Stream[Any]):
    """A stream whose ``batches()`` replaces ``take()``.

    ``take()`` acknowledges a batch even when its body raises, waits out its whole time limit at
    low load, and makes several tasks and locks per event. Here a batch is what has arrived:
    small when idle, large under load; and an exception leaves every event unacknowledged.
    """

    async def batches(self, max_records: int, wait_s: float) -> AsyncIterator[list[Any]]:
        """Yield up to ``max_records`` of aiokafka's records, those of ``wait_s`` seconds after the
        first.

        Acknowledges the batch when the consumer asks for the next one.
        """
        await self.maybe_start()
        channel: Any = self.channel
        consumer: Any = self.app.consumer
        while not self.should_stop:
            try:
                first = await channel.__anext__()
            except StopAsyncIteration:  # how Faust's channels say that the worker stops
                return
            batch: list[Part] = []
            left = self._take(first, batch, max_records)
            left = self._drain(channel.queue, batch, left)
            if wait_s and batch and left:
                await asyncio.sleep(wait_s)
                self._drain(channel.queue, batch, left)
            if batch:
                yield [record for part in batch for record in part.records]
                for part in batch:
                    consumer.done(part)

    def _drain(self, queue: Any, batch: list[Part], left: int) -> int:
        """Take what the queue holds, ``left`` records at most; return how many more may come."""
        # What the queue holds beside runs, the word to stop, is left to __anext__.
        while left and not (queue.empty() or queue._errors):
            left = self._take(queue.get_nowait(), batch, left)
        return left

    def _take(self, run: Run, batch: list[Part], left: int) -> int:
        """Add a run's records to the batch, at once in progress, unless its assignment has ended.

        What is fetched before a rebalance must not be processed after it: the partition may have
        another owner, and is read again from the committed offset if it has not. Nor may a
        batch that is still gathered while a rebalance begins: Faust waits for what is in progress
        before it lets go of the partitions, and forgets what is in the queues.
        """
        app: Any = self.app
        is_of_now = run.generation_id == app.consumer_generation_id
        if not is_of_now or not app.flow_control.is_active():
            why = "while rebalancing" if is_of_now else "of an earlier time"
            n_left, place = len(run), run.records[-len(run)].offset
            log.info("left to be read again: %d of %r from %d, %s", n_left, run.tp, place, why)
            return left
        part = run.take(left)
        app.consumer.track(part)
        batch.append(part)
        if len(run):
            cast(Any, self.channel).queue.put_back(run)
        return left - len(part.records)


def source_message(record: Any, names: Mapping[str, str]) -> SourceMessage:
    """Return the plain value of one of aiokafka's records; ``names`` are the topics' by their full
    names."""
    return SourceMessage(
        topic=names[record.topic],
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp or 0,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )
