"""forget: tombstones for users, and the wait until they have taken effect everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream.connection import client_options
from stream.latest import held_keys, latest, partition_of, reading
from stream.settings import Settings
from stream.topic_names import full_name
from stream.topics import CHURN_RISK, RECOMMENDATIONS, SEARCH_RESULTS, USERS

_AT_ONCE = 10_000
_LOOK_AGAIN_S = 2.0


async def forget(
    settings: Settings, changelog: str, user_id: str, deadline_s: float = 30.0
) -> list[str]:
    """Send the tombstone; return the topics that still hold the user after ``deadline_s``.

    ``changelog`` is the topic's full name. A topic is clear once a tombstone of the user has
    come, or when it never held the user. Raises LookupError when a topic is missing, KafkaError
    when there is no broker.
    """
    key = user_id.encode()
    topics = _topics(settings, changelog)
    async with reading(settings) as consumer:
        places = [await partition_of(consumer, topic, key) for topic in topics]
        ends = await consumer.end_offsets(places)
        await _send_tombstones(settings, full_name(settings, USERS.name), [key])
        await _await_tombstones(consumer, ends, key, deadline_s)
    return [topic for topic in topics if await _holds(settings, topic, key)]


async def forget_key(
    settings: Settings, changelog: str, key_id: str, deadline_s: float = 300.0
) -> tuple[int, int]:
    """Forget whoever has a pseudonym under a key; return how many there were, and how many still
    are after ``deadline_s``.

    Raises LookupError when a topic is missing, KafkaError when there is no broker.
    """
    until_s = time.monotonic() + deadline_s
    users = full_name(settings, USERS.name)
    # What the shop stated of somebody who never did anything is in no topic of ours.
    first = await _under(settings, [users, *_topics(settings, changelog)], key_id)
    for start in range(0, len(first), _AT_ONCE):
        await _send_tombstones(settings, users, first[start : start + _AT_ONCE])
    left = first
    while left and time.monotonic() < until_s:
        await asyncio.sleep(_LOOK_AGAIN_S)
        left = await _under(settings, _topics(settings, changelog), key_id)
    return len(first), len(left)


def _topics(settings: Settings, changelog: str) -> list[str]:
    """Return the topics that hold users."""
    published = (RECOMMENDATIONS, CHURN_RISK, SEARCH_RESULTS)
    return [changelog, *(full_name(settings, spec.name) for spec in published)]


async def _under(settings: Settings, topics: Sequence[str], key_id: str) -> list[bytes]:
    prefix = f"{key_id}.".encode()
    found = [await held_keys(settings, topic, prefix) for topic in topics]
    return sorted(set().union(*found))


async def _send_tombstones(settings: Settings, topic: str, keys: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(**client_options(settings), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        sent = [await producer.send(topic, key=key, value=None) for key in keys]
        await asyncio.gather(*sent)
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
