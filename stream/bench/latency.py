"""latency: act sent to list received, by a producer and a consumer outside the workers."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream.bench.broker import of_side
from stream.bench.load import wall_ms
from stream.bench.processes import url, whole_worker
from stream.bench.report import Figure, number
from stream.bench.rounds import BenchFailed, OnTurn
from stream.bench.sizes import Latency
from stream.connection import client_options
from stream.demo.live import Sender, monotonic_ms, until
from stream.demo.processes import Child, free_ports, gauge, why_not_ready
from stream.demo.shop import build_shop
from stream.demo.shoppers import Act, Crowd, build_shoppers
from stream.settings import Settings
from stream.topic_admin import create_topics
from stream.topics import RECOMMENDATIONS
from stream.worker import PROCESSES

_SEED = 7
# For the start, and for each item that a slow machine has to encode.
_READY_WITHIN_S, _ITEM_WITHIN_S = 180.0, 0.1
#: After the last act the lists of the last ones may still be under way.
_LAST_LISTS_S = 5.0


class _Trigger(msgspec.Struct):
    event_id: str


class _List(msgspec.Struct):
    trigger: _Trigger


class Reader:
    """Notes when the list for each act came, monotonic milliseconds."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self._decoder = consumer, msgspec.json.Decoder(_List)
        self.came_ms: dict[str, float] = {}

    async def read(self) -> None:
        """Read until cancelled."""
        while True:
            batches = await self._consumer.getmany(timeout_ms=1000)
            at_ms = monotonic_ms()
            for records in batches.values():
                for record in records:
                    if record.value is not None:
                        event_id = self._decoder.decode(record.value).trigger.event_id
                        self.came_ms.setdefault(event_id, at_ms)


def measure(size: Latency, settings: Settings, on_turn: OnTurn) -> Figure:
    """Run all of `prefstream worker`, and act at an even rate."""
    with tempfile.TemporaryDirectory(prefix="prefstream-bench-") as folder:
        return asyncio.run(_measure(size, of_side(settings, "latency"), Path(folder), on_turn))


async def _measure(size: Latency, settings: Settings, folder: Path, on_turn: OnTurn) -> Figure:
    shop = build_shop(_SEED, wall_ms(), size.items)
    crowd = Crowd(shop, build_shoppers(_SEED, wall_ms(), round(1000 * size.seconds), size.users))
    sent_ms: dict[str, float] = {}

    def note(act: Act, at_ms: float) -> None:
        sent_ms[act.event_id] = at_ms

    async with AsyncExitStack() as stack:
        await create_topics(settings)
        on_turn(f"starting the workers, encoding {len(shop):,} items", 0, 2)
        ports = range(first := free_ports(len(PROCESSES)), first + len(PROCESSES))
        worker = stack.enter_context(whole_worker(settings, folder, first))
        send = await _sender(settings, stack)
        await send.send_shop(crowd)
        await _ready(worker, ports, len(shop))
        read = await _reader(settings, stack)
        on_turn(f"acting for {size.seconds:.0f} s", 1, 2)
        reading = asyncio.create_task(read.read())
        acts = crowd.acts(np.random.default_rng(_SEED), wall_ms)
        started_s = time.monotonic()
        await send.send_acts(acts, size.rate, size.seconds, note)
        rate = len(sent_ms) / (time.monotonic() - started_s)
        await until(lambda: len(read.came_ms) == len(sent_ms), _LAST_LISTS_S)
        reading.cancel()
    on_turn("", 2, 2)
    return _figure(size, settings, len(shop), rate, sent_ms, read.came_ms)


async def _sender(settings: Settings, stack: AsyncExitStack) -> Sender:
    producer: Any = AIOKafkaProducer(
        **client_options(settings), acks="all", enable_idempotence=True
    )
    stack.push_async_callback(producer.stop)
    await producer.start()
    return Sender(producer, settings.topic_prefix)


async def _reader(settings: Settings, stack: AsyncExitStack) -> Reader:
    """Return a reader that stands at the end of the lists."""
    consumer: Any = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    stack.push_async_callback(consumer.stop)
    await consumer.start()
    topic = settings.topic_prefix + RECOMMENDATIONS.name
    places = [TopicPartition(topic, number) for number in range(settings.partitions)]
    consumer.assign(places)
    await consumer.seek_to_end(*places)
    return Reader(consumer)


async def _ready(worker: Child, ports: Sequence[int], n_items: int) -> None:
    preference = ports[PROCESSES.index("preference")]

    def indexed() -> bool:
        worker.check()
        ready = not any(why_not_ready(url(port, "ready")) for port in ports)
        return ready and gauge(url(preference, "metrics"), "prefstream_index_items") >= n_items

    within_s = _READY_WITHIN_S + n_items * _ITEM_WITHIN_S
    if not await until(indexed, within_s, every_s=0.25):
        raise BenchFailed(f"the workers are not ready after {within_s:.0f} s: {worker.tail(3)}")


def _figure(
    size: Latency,
    settings: Settings,
    n_items: int,
    rate: float,
    sent_ms: dict[str, float],
    came_ms: dict[str, float],
) -> Figure:
    first_ms = min(sent_ms.values()) + 1000 * size.warm_up_s
    latencies_ms = [
        at_ms - sent_ms[event_id]
        for event_id, at_ms in came_ms.items()
        if event_id in sent_ms and sent_ms[event_id] >= first_ms
    ]
    if not latencies_ms:
        raise BenchFailed("latency: no list came for any act")
    p50, p95, p99 = np.percentile(latencies_ms, [50, 95, 99]).tolist()
    return Figure(
        "latency",
        {"events_per_s": rate, "p50_ms": p50, "p99_ms": p99},
        ("act sent to list received", "value"),
        [
            ("acts per second", number(rate)),
            ("p50", f"{number(p50)} ms"),
            ("p95", f"{number(p95)} ms"),
            ("p99", f"{number(p99)} ms"),
            ("longest", f"{number(max(latencies_ms))} ms"),
            ("acts with a list of their own", f"{len(came_ms) / len(sent_ms):.1%}"),
        ],
        f"{n_items:,} items, {size.users:,} shoppers, {settings.partitions} partitions; all three "
        f"processes, encoding on {settings.encoder_device}; {size.seconds:.0f} s, the first "
        f"{size.warm_up_s:.0f} s not counted. Acts of one shopper close together share a list.",
    )
