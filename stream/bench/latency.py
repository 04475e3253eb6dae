"""latency: act sent to list received, by a producer and a consumer outside the workers."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
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
from stream.engine.loop import KafkaLoop
from stream.settings import Settings
from stream.topic_admin import create_topics
from stream.topics import RECOMMENDATIONS, SEARCHES
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
    """Notes when lists came, monotonic milliseconds; what is in them is looked at in the end.

    Who is measured needs the cores too.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._came: list[tuple[float, bytes]] = []

    async def read(self) -> None:
        """Read until cancelled."""
        while True:
            batches = await self._consumer.getmany(timeout_ms=1000)
            at_ms = monotonic_ms()
            for records in batches.values():
                self._came += [(at_ms, each.value) for each in records if each.value is not None]

    def __len__(self) -> int:
        return len(self._came)

    def came_ms(self) -> dict[str, float]:
        """Return when the first list for each act came."""
        decode = msgspec.json.Decoder(_List).decode
        came = {decode(value).trigger.event_id: at_ms for at_ms, value in reversed(self._came)}
        return dict(reversed(came.items()))


def measure(size: Latency, settings: Settings, on_turn: OnTurn) -> Figure:
    """Run all of `prefstream worker`, and act at an even rate."""
    with tempfile.TemporaryDirectory(prefix="prefstream-bench-") as folder:
        measuring = _measure(size, of_side(settings, "latency"), Path(folder), on_turn)
        with asyncio.Runner(loop_factory=KafkaLoop) as runner:
            return runner.run(measuring)


async def _measure(size: Latency, settings: Settings, folder: Path, on_turn: OnTurn) -> Figure:
    shop = build_shop(_SEED, wall_ms(), size.items)
    crowd = Crowd(shop, build_shoppers(_SEED, wall_ms(), round(1000 * size.seconds), size.users))
    sent: dict[str, tuple[str, float]] = {}

    def note(act: Act, at_ms: float) -> None:
        sent[act.event_id] = act.topic, at_ms

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
        acts = _mixed(crowd.acts(np.random.default_rng(_SEED), wall_ms), size)
        started_s = time.monotonic()
        await send.send_acts(acts, size.rate, size.seconds, note)
        rate = len(sent) / (time.monotonic() - started_s)
        await until(lambda: len(read) >= len(sent), _LAST_LISTS_S)
        reading.cancel()
    on_turn("", 2, 2)
    return _figure(size, settings, len(shop), rate, sent, read.came_ms())


def _mixed(acts: Iterator[Act], size: Latency) -> Iterator[Act]:
    """Leave out the searches above the share that is asked for."""
    n_acts = n_searches = 0
    for act in acts:
        if act.topic == SEARCHES.name:
            if n_searches >= size.searches * (n_acts + 1) / size.rate:
                continue
            n_searches += 1
        n_acts += 1
        yield act


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
    sent: dict[str, tuple[str, float]],
    came_ms: dict[str, float],
) -> Figure:
    first_ms = min(at_ms for _, at_ms in sent.values()) + 1000 * size.warm_up_s
    latencies_ms: dict[str, list[float]] = {"": []}
    for event_id, came_at_ms in came_ms.items():
        topic, at_ms = sent.get(event_id, ("", -math.inf))
        if at_ms >= first_ms:
            latencies_ms[""].append(came_at_ms - at_ms)
            latencies_ms.setdefault(topic, []).append(came_at_ms - at_ms)
    if not latencies_ms[""]:
        raise BenchFailed("latency: no list came for any act")
    p50, p95, p99 = np.percentile(latencies_ms[""], [50, 95, 99]).tolist()
    values = {"events_per_s": rate, "p50_ms": p50, "p99_ms": p99}
    told = [
        ("acts per second", number(rate)),
        ("p50", f"{number(p50)} ms"),
        ("p95", f"{number(p95)} ms"),
        ("p99", f"{number(p99)} ms"),
        ("longest", f"{number(max(latencies_ms['']))} ms"),
    ]
    if of_searches := latencies_ms.get(SEARCHES.name):
        p50, p99 = np.percentile(of_searches, [50, 99]).tolist()
        values |= {"searches_p50_ms": p50, "searches_p99_ms": p99}
        told += [("searches: p50", f"{number(p50)} ms"), ("searches: p99", f"{number(p99)} ms")]
    n_answered = sum(event_id in came_ms for event_id in sent)
    n_searches = sum(topic == SEARCHES.name for topic, _ in sent.values())
    return Figure(
        "latency",
        values,
        ("act sent to list received", "value"),
        [*told, ("acts with a list of their own", f"{n_answered / len(sent):.1%}")],
        f"{n_items:,} items, {size.users:,} shoppers, {settings.partitions} partitions; all three "
        f"processes, encoding on {settings.encoder_device}; {size.seconds:.0f} s, the first "
        f"{size.warm_up_s:.0f} s not counted; {n_searches / len(sent):.1%} of the acts are "
        "searches. Acts of one shopper close together share a list.",
    )
