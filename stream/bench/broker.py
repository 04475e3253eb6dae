"""The Apache Kafka that is measured on: what is asked of it, and topics that end with the run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.bench.rounds import BenchFailed
from stream.connection import client_options
from stream.engine.resting import AT_ONCE_S, is_empty_fetch
from stream.settings import Settings
from stream.topic_admin import create_topics, delete_topics, wait_for_broker
from stream.topics import CLICKSTREAM

_DEADLINE_S = 10.0
#: How long an empty fetch may be held, and how long we look at such fetches.
_HELD_MS, _WATCHED_MS = 300, 1500


@contextmanager
def topics_of_this_run(settings: Settings, broker: str) -> Iterator[Settings]:
    """Give the settings of a run on a broker; delete every topic under its prefix in the end.

    Raises BrokerAbsent, AccessRefused, and BenchFailed for a broker that does not hold a fetch.
    """
    own = {
        "broker": broker,
        "topic_prefix": f"bench-{uuid.uuid4().hex[:8]}-",
        "state_prefix": "",
        "broker_wait_s": _DEADLINE_S,
    }
    settings = settings.model_copy(update=own)
    asyncio.run(wait_for_broker(settings))
    try:
        asyncio.run(_require_held_fetches(of_side(settings, "broker")))
        yield settings
    finally:
        asyncio.run(delete_topics(settings))


def of_side(settings: Settings, name: str) -> Settings:
    """Return the settings with topics of a side's own, under the run's prefix."""
    return settings.model_copy(update={"topic_prefix": f"{settings.topic_prefix}{name}-"})


async def _require_held_fetches(settings: Settings) -> None:
    await create_topics(settings)
    if await _empty_fetch_s(settings) < AT_ONCE_S:
        raise BenchFailed(
            f"the broker at {settings.broker} answers an empty fetch at once, as the embedded one "
            "does: no time can be judged on it; name an Apache Kafka with --broker"
        )


async def _empty_fetch_s(settings: Settings) -> float:
    """Return how long the broker holds a fetch for which there is nothing."""
    held_s: list[float] = []
    consumer: Any = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, fetch_max_wait_ms=_HELD_MS
    )
    send = consumer._client.send

    async def timed(node_id: int, request: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        response = await send(node_id, request, **options)
        if is_empty_fetch(response):
            held_s.append(loop.time() - started_s)
        return response

    consumer._client.send = timed
    await consumer.start()
    try:
        topic = settings.topic_prefix + CLICKSTREAM.name
        consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
        await consumer.getmany(timeout_ms=_WATCHED_MS)
    finally:
        await consumer.stop()
    return median(held_s) if held_s else 0.0
