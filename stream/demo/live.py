"""The demo on the wire: sends what the shoppers do, reads what comes back, and says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, BinaryIO

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from msgspec import Raw, Struct
from rich.text import Text

from stream.demo.observer import Observer
from stream.demo.shoppers import Act, Crowd
from stream.demo.summary import churn_line, recommendation_line, stranger_line

Say = Callable[[Text | str], None]

#: Messages that can never be processed, to show what becomes of them: (topic, key, value).
POISON: tuple[tuple[str, bytes, bytes], ...] = (
    ("clickstream", b"ada", b'{"event_id": "broken'),
    ("clickstream", b"ada", b'{"event_id": "x", "user_id": "ada", "type": "click"}'),
    ("searches", b"ada", b'{"event_id": "x", "user_id": "ada", "query": 7}'),
)

# A person can read about two lines a second.
_LINE_EVERY_S, _RISK_LINE_EVERY_S = 0.5, 2.0


def monotonic_ms() -> float:
    return time.monotonic_ns() / 1e6


class Sender:
    """Sends the shop and its shoppers' acts; every delivery is awaited in the end.

    What the shop and its shoppers say is written to ``log`` too, as JSON lines (formats/jsonl.py).
    """

    def __init__(
        self, producer: AIOKafkaProducer, prefix: str, log: BinaryIO | None = None
    ) -> None:
        self._producer, self._prefix, self._log = producer, prefix, log
        self._deliveries: set[asyncio.Future[Any]] = set()

    async def send(self, topic: str, key: str, event: Struct) -> None:
        value = msgspec.json.encode(event)
        if self._log is not None:
            line = {"topic": topic, "key": key, "value": Raw(value)}
            self._log.write(msgspec.json.encode(line) + b"\n")
        await self.send_raw(topic, key.encode(), value)

    async def send_raw(self, topic: str, key: bytes, value: bytes) -> None:
        delivery = await self._producer.send(f"{self._prefix}{topic}", key=key, value=value)
        self._deliveries.add(delivery)

    async def delivered(self) -> None:
        """Return once the broker has everything; raise KafkaError for what it refused."""
        await asyncio.gather(*self._deliveries)
        self._deliveries.clear()

    async def send_shop(self, crowd: Crowd) -> None:
        """Send every item and what the shop states about its shoppers."""
        for each in crowd.shop.items.values():
            await self.send("items", each.item.item_id, each.item)
        for shopper in crowd.shoppers.values():
            await self.send("users", shopper.user_id, shopper.user)
        await self.delivered()

    async def send_acts(
        self, acts: Iterator[Act], rate: float, seconds: float, note: Callable[[Act, float], None]
    ) -> None:
        """Send acts at a rate for some time; ``note`` gets each with its time of sending."""
        start_s = time.monotonic()
        for n in count():
            if n >= rate * seconds:
                break
            await asyncio.sleep(start_s + n / rate - time.monotonic())
            act = next(acts)
            note(act, monotonic_ms())
            await self.send(act.topic, act.user_id, act.event)
        await self.delivered()


class Reader:
    """Reads the outputs into the observer, and says a few of them aloud."""

    def __init__(self, consumer: AIOKafkaConsumer, prefix: str, watch: Observer, say: Say) -> None:
        self._consumer, self._prefix, self._watch, self._say = consumer, prefix, watch, say
        self._said_s = self._risk_said_s = 0.0
        self._title = watch.title
        #: Monotonic seconds of the first and of the latest recommendation of any cause.
        self.first_s: float | None = None
        self.latest_s: float = time.monotonic()

    def follow(self) -> None:
        """Take every partition of the outputs; the consumer has no group."""
        topics = ("recommendations", "churn-risk", "dead-letters")
        self._consumer.subscribe([f"{self._prefix}{topic}" for topic in topics])

    def settled(self, quiet_s: float) -> bool:
        """Say whether recommendations have come, and none for some time."""
        return self.first_s is not None and time.monotonic() - self.latest_s > quiet_s

    async def read(self) -> None:
        """Read until cancelled."""
        while True:
            batches = await self._consumer.getmany(timeout_ms=1000)
            received_ms = monotonic_ms()
            for place, records in batches.items():
                for record in records:
                    self._take(place.topic.removeprefix(self._prefix), record, received_ms)

    def _take(self, topic: str, record: Any, received_ms: float) -> None:
        if topic == "recommendations":
            self._recommended(record.value, received_ms)
        elif topic == "churn-risk":
            self._assessed(record.value)
        else:
            self._say(f"dead letter: {self._watch.dead_letter(record.headers)}")

    def _recommended(self, raw: bytes | None, received_ms: float) -> None:
        self.latest_s = time.monotonic()
        if self.first_s is None:
            self.first_s = self.latest_s
        seen = self._watch.recommended(raw, received_ms)
        if seen and self.latest_s - self._said_s > _LINE_EVERY_S:
            self._said_s = self.latest_s
            self._say(recommendation_line(seen, self._title))
        elif raw and not seen:
            self._stranger(raw)

    def _assessed(self, raw: bytes | None) -> None:
        risk = self._watch.assessed(raw)
        now_s = time.monotonic()
        moved = risk is not None and risk.previous_band is not None and self._said_s > 0
        if risk and moved and now_s - self._risk_said_s > _RISK_LINE_EVERY_S:
            self._risk_said_s = now_s
            self._say(churn_line(risk))

    def _stranger(self, raw: bytes) -> None:
        """Say what came for somebody who is not simulated: an event was put in by hand."""
        message = msgspec.json.decode(raw)
        if not self._watch.knows(message["user_id"]):
            self._say(stranger_line(message, self._title))


async def until(holds: Callable[[], bool], deadline_s: float, every_s: float = 0.05) -> bool:
    """Wait until something holds, asked in a thread; return whether it does in time."""
    until_s = time.monotonic() + deadline_s
    while not await asyncio.to_thread(holds):
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(every_s)
    return True
