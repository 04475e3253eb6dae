"""forget: a tombstone for a user, and the wait until it has taken effect everywhere."""

from __future__ import annotations

import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream.connection import client_options
from stream.latest import latest, partition_of, reading
from stream.settings import Settings


async def forget(
    settings: Settings, changelog: str, user_id: str, deadline_s: float = 30.0
) -> list[str]:
    """Send the tombstone; return the topics that still hold the user after ``deadline_s``.

    ``changelog`` is the topic's full name. A topic is clear once a tombstone of the user has
    come, or when it never held the user. Raises LookupError when a topic is missing, KafkaError
    when there is no broker.
    """
    prefix, key = settings.topic_prefix, user_id.encode()
    published = ("recommendations", "churn-risk", "search-results")
    topics = [changelog, *(prefix + topic for topic in published)]
    async with reading(settings) as consumer:
        places = [await partition_of(consumer, topic, key) for topic in topics]
        ends = await consumer.end_offsets(places)
        await _send_tombstone(settings, f"{prefix}users", key)
        await _await_tombstones(consumer, ends, key, deadline_s)
    return [topic for topic in topics if await _holds(settings, topic, key)]


async def _send_tombstone(settings: Settings, topic: str, key: bytes) -> None:
    producer = AIOKafkaProducer(**client_options(settings), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        await producer.send_and_wait(topic, key=key, value=None)
    finally:
        await producer.stop()


async def _await_tombstones(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], key: bytes, deadline_s: float
) -> None:
    """Read from ``ends`` on until a tombstone of the key has come in each place."""
    until_s = time.monotonic() + deadline_s
    waiting = set(ends)
    consumer.assign(list(ends))
    for place, end in ends.items():
        consumer.seek(place, end)
    while waiting and time.monotonic() < until_s:
        for place, records in (await consumer.getmany(timeout_ms=200)).items():
            if any(record.key == key and record.value is None for record in records):
                waiting.discard(place)


async def _holds(settings: Settings, topic: str, key: bytes) -> bool:
    last = (await latest(settings, topic, [key])).get(key)
    return last is not None and last.value is not None
