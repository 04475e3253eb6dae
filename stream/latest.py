"""The latest message of a key: read backwards from the end of its partition."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from stream.connection import client_options
from stream.settings import Settings

# Most people asked about acted recently: look at a little first, then at ever more.
_FIRST_WINDOW = 2_000
_STALLED_S = 30.0
_partition_of = DefaultPartitioner()  # murmur2, as Java's


async def partition_of(consumer: AIOKafkaConsumer, topic: str, key: bytes) -> TopicPartition:
    """Return the partition a key belongs to; raise LookupError when there is no such topic."""
    partitions = await partitions_of(consumer, topic)
    return TopicPartition(topic, _partition_of(key, partitions, partitions))


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a started consumer that belongs to no group; raises KafkaError without a broker."""
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """Return a topic's partitions, sorted; raise LookupError when there is no such topic."""
    # The consumer itself knows the topics it reads, and of others whatever it happened to hear.
    cluster = await consumer._client.fetch_all_metadata()
    found = cluster.partitions_for_topic(topic)
    if not found:
        raise LookupError(f"no topic {topic}")
    return sorted(found)


async def latest(
    settings: Settings, topic: str, keys: Collection[bytes], deadline_s: float = 30.0
) -> dict[bytes, ConsumerRecord]:
    """Return the newest message of each key that has one; only partitions of the keys are read.

    What is not found within ``deadline_s`` is left out. Raises LookupError when there is no such
    topic, KafkaError when there is no broker.
    """
    until_s = time.monotonic() + deadline_s
    found: dict[bytes, ConsumerRecord] = {}
    if not keys:
        return found
    async with reading(settings) as consumer:
        wanted: defaultdict[TopicPartition, set[bytes]] = defaultdict(set)
        for key in keys:
            wanted[await partition_of(consumer, topic, key)].add(key)
        for place, missing in wanted.items():
            found.update(await _latest_in(consumer, place, missing, until_s))
    return found


async def held_keys(settings: Settings, topic: str, prefix: bytes) -> set[bytes]:
    """Return the keys that begin so and whose newest message is no tombstone; reads all of a topic.

    Raises LookupError when there is no such topic, TimeoutError when the broker stops answering.
    """
    held: set[bytes] = set()
    async with reading(settings) as consumer:
        places = [TopicPartition(topic, n) for n in await partitions_of(consumer, topic)]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        waiting, heard_s = set(places), time.monotonic()
        while waiting := {p for p in waiting if await consumer.position(p) < ends[p]}:
            for records in (await consumer.getmany(*waiting, timeout_ms=200)).values():
                heard_s = time.monotonic()
                for record in records:
                    if record.key is not None and record.key.startswith(prefix):
                        (held.discard if record.value is None else held.add)(record.key)
            if time.monotonic() - heard_s > _STALLED_S:
                raise TimeoutError(f"nothing of {topic} has come for {_STALLED_S:.0f} s")
    return held


async def _latest_in(
    consumer: AIOKafkaConsumer, place: TopicPartition, missing: set[bytes], until_s: float
) -> dict[bytes, ConsumerRecord]:
    consumer.assign([place])
    first = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    found: dict[bytes, ConsumerRecord] = {}
    window = _FIRST_WINDOW
    while end > first and len(found) < len(missing) and time.monotonic() < until_s:
        start = max(first, end - window)
        newer = await _newest_between(consumer, place, start, end, missing - set(found), until_s)
        found.update(newer)
        end, window = start, window * 4
    return found


async def _newest_between(
    consumer: AIOKafkaConsumer,
    place: TopicPartition,
    start: int,
    end: int,
    keys: set[bytes],
    until_s: float,
) -> dict[bytes, ConsumerRecord]:
    newest: dict[bytes, ConsumerRecord] = {}
    consumer.seek(place, start)
    while await consumer.position(place) < end and time.monotonic() < until_s:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                if record.key in keys and record.offset < end:
                    newest[record.key] = record
    return newest
