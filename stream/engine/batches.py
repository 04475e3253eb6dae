"""BatchStream: whole micro-batches of raw events, acknowledged only when they are done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

import faust
from faust.types import EventT

from stream.delivery import SourceMessage

log = logging.getLogger(__name__)


class BatchStream(faust.Stream[Any]):
    """A stream whose ``batches()`` replaces ``take()``.

    ``take()`` acknowledges a batch even when its body raises, waits out its whole time limit at
    low load, and makes several tasks and locks per event. Here a batch is what has arrived:
    small when idle, large under load; and an exception leaves every event unacknowledged.
    """

    async def batches(self, max_events: int, wait_s: float) -> AsyncIterator[list[EventT[Any]]]:
        """Yield up to ``max_events`` events, those of ``wait_s`` seconds after the first.

        Acknowledges the batch when the consumer asks for the next one.
        """
        await self.maybe_start()
        channel: Any = self.channel
        while not self.should_stop:
            try:
                first = await channel.__anext__()
            except StopAsyncIteration:  # how Faust's channels say that the worker stops
                return
            batch: list[EventT[Any]] = []
            self._take(first, batch)
            self._drain(channel.queue, batch, max_events)
            if wait_s and batch and len(batch) < max_events:
                await asyncio.sleep(wait_s)
                self._drain(channel.queue, batch, max_events)
            if batch:
                yield batch
                # Without Faust's sensors: ours count a batch at a time.
                consumer = self.app.consumer
                for event in batch:
                    event.message.ack(consumer)

    def _drain(self, queue: Any, batch: list[EventT[Any]], max_events: int) -> None:
        # What the queue holds beside events, the word to stop, is left to __anext__.
        while len(batch) < max_events and not (queue.empty() or queue._errors):
            self._take(queue.get_nowait(), batch)

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """What is asked for each event, looked up once: Faust would find it anew each time."""
        app = self.app
        return app.flow_control, app.topics.acking_topics, app.consumer

    def _take(self, event: EventT[Any], batch: list[EventT[Any]]) -> None:
        """Add an event to the batch, at once in progress, unless its assignment has ended.

        What is fetched before a rebalance must not be processed after it: the partition may have
        another owner, and is read again from the committed offset if it has not. Nor may a
        batch that is still gathered while a rebalance begins: Faust waits for what is in progress
        before it lets go of the partitions, and forgets what is in the queues.
        """
        message, (flow, acking_topics, consumer) = event.message, self._parts
        if message.generation_id != self.app.consumer_generation_id:
            log.info("left to be read again: %s offset=%d, of an earlier time", *_place(message))
            return
        if not flow.is_active():
            log.info("left to be read again: %s offset=%d, while rebalancing", *_place(message))
            return
        batch.append(event)
        if not message.tracked and message.topic in acking_topics:
            message.tracked = True
            consumer.track_message(message)


def _place(message: Any) -> tuple[str, int]:
    return f"topic={message.topic} partition={message.partition}", message.offset


def source_message(event: EventT[Any], prefix: str) -> SourceMessage:
    """Return the plain value of an event; ``prefix`` is cut from its topic."""
    message: Any = event.message
    headers = message.headers or ()
    return SourceMessage(
        topic=message.topic.removeprefix(prefix),
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=round((message.timestamp or 0) * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(headers.items() if isinstance(headers, dict) else headers),
    )
