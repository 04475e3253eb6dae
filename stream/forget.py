"""forget: tombstones for users, and the wait until they have taken effect everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream.connection import client_options
from stream.latest import held_keys, partition_of, reading
from stream.settings import Settings
from stream.topic_names import full_name
from stream.topics import TOPICS, USERS
from stream.traces import Trace, traces

_AT_ONCE = 10_000
_LOOK_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """``in_effect``: a worker has erased the user, in its store too; and what is left in topics."""

    in_effect: bool
    left: list[Trace]


async def forget(
    settings: Settings, names: Sequence[str], deadline_s: float = 30.0, until_gone: bool = False
) -> Forgotten:
    """Send tombstones for a user's names and wait until they have taken effect.

    They have when tombstones of each name have come in all that a worker writes, whether it knew
    the user or not: those of the outputs come after the local store has let go of the row. With
    ``until_gone``, wait until older values have been compacted away too. What is not so after
    ``deadline_s`` is told as it is then. Raises LookupError when a topic is missing, KafkaError
    when there is no broker.
    """
    until_s = time.monotonic() + deadline_s
    keys = [name.encode() for name in names]
    async with reading(settings) as consumer:
        topics = written_topics(settings)
        waiting = {
            (await partition_of(consumer, topic, key), key) for topic in topics for key in keys
        }
        ends = await consumer.end_offsets([place for place, _ in waiting])
        await send_tombstones(settings, keys)
        came = await _await_tombstones(consumer, waiting, ends, until_s)
    while True:
        left = await traces(settings, keys, _now_ms())
        is_done = not until_gone or all(one.left in ("gone", "kept") for one in left)
        if is_done or not came or time.monotonic() > until_s:
            return Forgotten(came, left)
        await asyncio.sleep(_LOOK_AGAIN_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def forget_key(settings: Settings, key_id: str, deadline_s: float = 300.0) -> tuple[int, int]:
    """Forget whoever has a pseudonym under a key; return how many there were, and how many still
    are after ``deadline_s``.

    Raises LookupError when a topic is missing, KafkaError when there is no broker.
    """
    until_s = time.monotonic() + deadline_s
    users, written = full_name(settings, USERS.name), written_topics(settings)
    # What the shop stated of somebody who never did anything is in no topic of ours.
    first = await _under(settings, [users, *written], key_id)
    for start in range(0, len(first), _AT_ONCE):
        await send_tombstones(settings, first[start : start + _AT_ONCE])
    left = first
    while left and time.monotonic() < until_s:
        await asyncio.sleep(_LOOK_AGAIN_S)
        left = await _under(settings, written, key_id)
    return len(first), len(left)


def written_topics(settings: Settings) -> list[str]:
    """Return the full names of topics in which a worker erases users."""
    return [full_name(settings, spec.name) for spec in TOPICS if spec.is_erasable and spec != USERS]


async def _under(settings: Settings, topics: Sequence[str], key_id: str) -> list[bytes]:
    prefix = f"{key_id}.".encode()
    found = [await held_keys(settings, topic, prefix) for topic in topics]
    return sorted(set().union(*found))


async def send_tombstones(settings: Settings, keys: Sequence[bytes]) -> None:
    """Have users forgotten; raises KafkaError when there is no broker."""
    topic = full_name(settings, USERS.name)
    producer = AIOKafkaProducer(**client_options(settings), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        sent = [await producer.send(topic, key=key, value=None) for key in keys]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def _await_tombstones(
    consumer: AIOKafkaConsumer,
    waiting: set[tuple[TopicPartition, bytes]],
    ends: Mapping[TopicPartition, int],
    until_s: float,
) -> bool:
    """Read from ``ends`` on until each key's tombstone has come in its place; False if not."""
    consumer.assign(list(ends))
    for place, end in ends.items():
        consumer.seek(place, end)
    while waiting and time.monotonic() < until_s:
        for place, records in (await consumer.getmany(timeout_ms=200)).items():
            waiting -= {(place, record.key) for record in records if record.value is None}
    return not waiting
