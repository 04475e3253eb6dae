"""BatchStream: whole micro-batches of raw events, acknowledged only when they are done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import faust
from faust.types import EventT

from stream.delivery import SourceMessage


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
                events = [await channel.__anext__()]
            except StopAsyncIteration:  # how Faust's channels say that the worker stops
                return
            self._drain(channel.queue, events, max_events)
            if wait_s and len(events) < max_events:
                await asyncio.sleep(wait_s)
                self._drain(channel.queue, events, max_events)
            batch = [event for event in events if self._track(event)]
            if batch:
                yield batch
                for event in batch:
                    await self.ack(event)

    @staticmethod
    def _drain(queue: Any, events: list[EventT[Any]], max_events: int) -> None:
        while len(events) < max_events and not queue.empty():
            events.append(queue.get_nowait())

    def _track(self, event: EventT[Any]) -> bool:
        """Mark an event as in progress; False for one of an assignment that has ended.

        What is fetched before a rebalance must not be processed after it: the partition may
        have another owner, and is read again from the committed offset if it has not.
        """
        message = event.message
        consumer = self.app.consumer
        if message.generation_id != self.app.consumer_generation_id:
            return False
        if not message.tracked and message.topic in self.app.topics.acking_topics:
            message.tracked = True
            consumer.track_message(message)
        return True


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
