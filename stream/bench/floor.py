"""The floor of `bench ingest`: aiokafka's ``getmany`` and msgspec, and nothing done with an act.

Started as ``python -m stream.bench.floor RANGES`` with the settings of a worker, where RANGES is
JSON: first and next offset by partition. Prints {"n_events", "cpu_s"}.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.connection import client_options
from stream.core.events import Interaction
from stream.settings import Settings, load_settings
from stream.topics import CLICKSTREAM


class Read(msgspec.Struct, frozen=True):
    """What was read, and the CPU seconds from the first fetch to the last act decoded."""

    n_events: int
    cpu_s: float


async def read(settings: Settings, stored: dict[int, tuple[int, int]]) -> Read:
    """Read and decode the acts of some ranges of ``clickstream``."""
    topic, decode = settings.topic_prefix + CLICKSTREAM.name, msgspec.json.Decoder(Interaction)
    ends = {TopicPartition(topic, number): end for number, (_, end) in stored.items()}
    consumer: Any = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, max_poll_records=5_000
    )
    await consumer.start()
    try:
        consumer.assign(list(ends))
        for number, (first, _) in stored.items():
            consumer.seek(TopicPartition(topic, number), first)
        started_s, n_events = time.process_time(), 0
        while [place for place, end in ends.items() if await consumer.position(place) < end]:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                n_events += len([decode.decode(record.value) for record in records])
        return Read(n_events, time.process_time() - started_s)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    ranges = msgspec.json.decode(sys.argv[1], type=dict[int, tuple[int, int]])
    found = asyncio.run(read(load_settings(), ranges))
    sys.stdout.write(msgspec.json.encode(found).decode())
