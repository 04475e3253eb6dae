"""traces: what the brokers still hold of a user, topic by topic, and until when at the latest.

Read from the beginning, as whoever gets at a broker's disk would: a value before a tombstone is
there until its segment is compacted, and so is what the ledgers beside the rows say of a user.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from stream.engine.commits import names_key
from stream.latest import partition_of, partitions_of, reading
from stream.settings import Settings
from stream.topic_admin import topic_configs
from stream.topic_names import full_name
from stream.topics import TOPICS, USER_STATE, TopicSpec

#: held: the newest value is none of an erased user. pending: a tombstone is the newest, and older
#: values, or the tombstone itself, are still there. kept: no tombstone can take it away.
Left = Literal["gone", "pending", "kept", "held"]
#: Kafka's way to say that there is no limit.
_NEVER_MS = 2**62
_STALLED_S = 30.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Trace:
    """What a topic (without prefixes) holds of a user.

    ``until_ms``: gone by then at the latest, None where nothing bounds it. ``n_values`` counts
    values of the user's that are still readable.
    """

    topic: str
    left: Left
    n_values: int = 0
    until_ms: int | None = None


async def traces(settings: Settings, keys: Collection[bytes], now_ms: int) -> list[Trace]:
    """Return what is left of users, over all topics that tell of users.

    Raises LookupError when a topic is missing, KafkaError when there is no broker, TimeoutError
    when it stops answering.
    """
    personal = [spec for spec in TOPICS if spec.personal]
    configs = await topic_configs(settings, personal)
    found: list[Trace] = []
    async with reading(settings) as consumer:
        for spec in personal:
            name = full_name(settings, spec.name)
            config = {**_defaults(spec), **configs.get(name, {})}
            if spec.is_erasable:
                found.append(await _erased(consumer, spec, name, keys, config, now_ms))
            elif await _is_empty(consumer, name):
                found.append(Trace(spec.name, "gone"))
            else:
                found.append(Trace(spec.name, "kept", until_ms=_expires_ms(config, now_ms)))
    return found


def _defaults(spec: TopicSpec) -> dict[str, str]:
    """Return what holds where a broker does not tell its settings."""
    return {"segment.ms": str(7 * _DAY_MS), **spec.config()}


def _expires_ms(config: Mapping[str, str], now_ms: int) -> int | None:
    # A segment goes as a whole, once its newest message is due.
    retention_ms = int(config["retention.ms"])
    if not 0 <= retention_ms < _NEVER_MS:
        return None
    return now_ms + retention_ms + int(config["segment.ms"])


async def _erased(
    consumer: AIOKafkaConsumer,
    spec: TopicSpec,
    name: str,
    keys: Collection[bytes],
    config: Mapping[str, str],
    now_ms: int,
) -> Trace:
    newest: dict[bytes, bool] = {}
    n_values = n_tombstones = 0
    for place in {await partition_of(consumer, name, key) for key in keys}:
        async for record in _all_of(consumer, place):
            if record.key in keys:
                newest[record.key] = record.value is not None
                n_values += record.value is not None
                n_tombstones += record.value is None
            elif spec is USER_STATE and record.value and names_key(record.key, record.value, keys):
                n_values += 1
    if any(newest.values()):
        return Trace(spec.name, "held", n_values)
    if not n_values and not n_tombstones:
        return Trace(spec.name, "gone")
    # The cleaner comes for the values once they are due, and for their tombstone when it is.
    lag_ms = int(config.get("max.compaction.lag.ms", _NEVER_MS))
    due_ms = (lag_ms if n_values else 0) + int(config.get("delete.retention.ms", _DAY_MS)) + lag_ms
    until_ms = None if lag_ms >= _NEVER_MS else now_ms + due_ms
    return Trace(spec.name, "pending", n_values, until_ms)


async def _is_empty(consumer: AIOKafkaConsumer, name: str) -> bool:
    places = [TopicPartition(name, number) for number in await partitions_of(consumer, name)]
    begins: dict[TopicPartition, int] = await consumer.beginning_offsets(places)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
    return begins == ends


async def _all_of(
    consumer: AIOKafkaConsumer, place: TopicPartition
) -> AsyncIterator[ConsumerRecord]:
    """Yield a partition's records from the first to the present end."""
    end = (await consumer.end_offsets([place]))[place]
    consumer.assign([place])
    await consumer.seek_to_beginning(place)
    heard_s = time.monotonic()
    while await consumer.position(place) < end:
        for record in (await consumer.getmany(place, timeout_ms=200)).get(place, ()):
            heard_s = time.monotonic()
            yield record
        if time.monotonic() - heard_s > _STALLED_S:
            raise TimeoutError(f"nothing of {place.topic} has come for {_STALLED_S:.0f} s")
