"""Seeded shoppers: every event that is sent, and where it came to lie."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import Producer

#: What must become of a message: folded, dead-lettered, or recognised as sent before.
Fate = Literal["good", "dead", "duplicate"]
Headers = tuple[tuple[str, bytes], ...]

WORDS = ("red", "blue", "warm", "light", "wool", "trail", "city", "winter", "running", "espresso")
THINGS = ("shoe", "sock", "coat", "cup", "lamp", "tent", "bag", "hat")
#: Kinds of acts and how often each comes.
ACTS = {
    "impression": 10,
    "view": 30,
    "click": 20,
    "add_to_cart": 6,
    "remove_from_cart": 2,
    "favorite": 4,
    "purchase": 6,
    "dislike": 2,
}
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
#: A duplicate follows its original within so many events of the same user: well within the memory.
NEAR = 12


@dataclass(frozen=True, slots=True)
class Message:
    """One message to send, and what must become of it."""

    topic: str
    key: bytes | None
    value: bytes | None
    fate: Fate = "good"
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as the broker acknowledged it."""

    message: Message
    partition: int
    offset: int

    @property
    def place(self) -> tuple[str, int, int]:
        return self.message.topic, self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of what makes a stream hostile, each 0 to 1."""

    duplicates: float = 0.0
    poison: float = 0.0
    #: Days late, and hours ahead of the clock.
    late: float = 0.0
    future: float = 0.0
    #: The shop states something new about a user, in the middle of it all.
    records: float = 0.0
    #: Of what is not poison: how much goes through the encoder first.
    texts: float = 0.15
    #: What an impression of an item that is not served yet says is lost, by rule.
    impressions: bool = True


CLEAN = Mix()
HOSTILE = Mix(duplicates=0.10, poison=0.02, late=0.05, records=0.02)


@dataclass
class Shoppers:
    """What ``n_users`` shoppers do with ``n_items`` items; the same seed does the same."""

    seed: int
    n_users: int = 120
    n_items: int = 60
    _random: random.Random = field(init=False)
    _n: int = field(init=False, default=0)
    _recent: dict[bytes, deque[Message]] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._recent = defaultdict(lambda: deque(maxlen=NEAR))

    @property
    def users(self) -> list[str]:
        return [f"u{number:03d}" for number in range(self.n_users)]

    @property
    def items(self) -> list[str]:
        return [f"i{number:03d}" for number in range(self.n_items)]

    def catalogue(self) -> list[Message]:
        rng = self._random
        return [
            _message(
                "items",
                item_id,
                item_id=item_id,
                title=f"{rng.choice(WORDS)} {rng.choice(WORDS)} {rng.choice(THINGS)} {item_id}",
                updated_ms=now_ms(),
                price=round(rng.uniform(2, 90), 2),
            )
            for item_id in self.items
        ]

    def records(self, share: float = 0.3) -> list[Message]:
        """Return ``users`` records of some of the users, with interests."""
        chosen = self._random.sample(self.users, round(share * self.n_users))
        return [self.record(user_id) for user_id in chosen]

    def record(self, user_id: str, **fields: Any) -> Message:
        stated = {
            "updated_ms": now_ms(),
            "interests": self._random.sample(WORDS, 2),
            "region": self._random.choice(("north", "south")),
        }
        return _message("users", user_id, user_id=user_id, **{**stated, **fields})

    def erasure(self, user_id: str) -> Message:
        """Return the tombstone that erases a user; what was sent before is not sent again."""
        self._recent[user_id.encode()].clear()
        return Message("users", user_id.encode(), None)

    def events(self, n: int, mix: Mix = CLEAN, users: Sequence[str] = ()) -> Iterator[Message]:
        """Yield ``n`` messages, those of the mix among them."""
        for _ in range(n):
            user_id = self._random.choice(users or self.users)
            yield self._next(user_id, mix)

    def closing(self) -> list[Message]:
        """Return one view of each user: whatever waited for an item is folded by it."""
        return [self._act(user_id, CLEAN, "view") for user_id in self.users]

    def shuffle(self, messages: list[Message]) -> None:
        """Put messages in another order, in place."""
        self._random.shuffle(messages)

    def _next(self, user_id: str, mix: Mix) -> Message:
        rng, chance = self._random, self._random.random()
        recent = self._recent[user_id.encode()]
        if chance < mix.duplicates and recent:
            again = rng.choice(recent)
            return Message(again.topic, again.key, again.value, "duplicate")
        if chance > 1 - mix.poison:
            return poison(rng, user_id)
        if rng.random() < mix.records:
            return self.record(user_id)
        if rng.random() < mix.texts:
            return self._text(user_id, mix)
        often = {k: n for k, n in ACTS.items() if mix.impressions or k != "impression"}
        return self._act(user_id, mix, rng.choices(list(often), list(often.values()))[0])

    def _act(self, user_id: str, mix: Mix, kind: str) -> Message:
        rng = self._random
        fields: dict[str, Any] = {"item_id": rng.choice(self.items), "type": kind}
        if kind == "purchase" and rng.random() < 0.8:
            fields |= {"price": round(rng.uniform(2, 90), 2), "quantity": rng.randint(1, 3)}
        if rng.random() < 0.3:
            fields["context"] = {"region": rng.choice(("north", "south"))}
        return self._event("clickstream", user_id, mix, fields)

    def _text(self, user_id: str, mix: Mix) -> Message:
        rng = self._random
        text = f"{rng.choice(WORDS)} {rng.choice(THINGS)}"
        if rng.random() < 0.7:
            clicked = rng.sample(self.items, rng.randint(0, 2))
            fields: dict[str, Any] = {"query": text, "clicked_item_ids": clicked}
            return self._event("searches", user_id, mix, fields)
        fields = {"item_id": rng.choice(self.items), "text": text}
        if rng.random() < 0.8:
            fields["rating"] = rng.randint(1, 5)
        return self._event("reviews", user_id, mix, fields)

    def _event(self, topic: str, user_id: str, mix: Mix, fields: dict[str, Any]) -> Message:
        self._n += 1
        rng = self._random
        event_time_ms = now_ms() - rng.randint(0, 60_000)
        chance = rng.random()
        if chance < mix.late:
            event_time_ms -= rng.randint(HOUR_MS, 9 * DAY_MS)
        elif chance > 1 - mix.future:
            event_time_ms += rng.randint(HOUR_MS, 2 * DAY_MS)
        message = _message(
            topic,
            user_id,
            event_id=f"e{self.seed}-{self._n}",
            user_id=user_id,
            event_time_ms=event_time_ms,
            **fields,
        )
        self._recent[user_id.encode()].append(message)
        return message


def poison(rng: random.Random, user_id: str) -> Message:
    """Return a message that can never be processed."""
    topic = rng.choice(("clickstream", "clickstream", "searches", "reviews"))
    raw = rng.choice(
        (
            b"{",
            b"\xff\xfe\x00",
            b"[1]",
            b"[" * 20_000,
            b'{"event_id": 7}',
            b'{"event_id":"x","user_id":"%s","item_id":"i000","type":"click","query":"q",'
            b'"text":"t","event_time_ms":1e400}' % user_id.encode(),
            None,
        )
    )
    return Message(topic, user_id.encode(), raw, "dead", (("trace", b"p\x00\xff"),))


def _message(topic: str, key: str, **fields: Any) -> Message:
    return Message(topic, key.encode(), json.dumps(fields).encode())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Shop:
    """Sends messages as a shop's own program would, and logs each that the broker acknowledged."""

    def __init__(self, broker: str, prefix: str, **config: Any) -> None:
        self._prefix = prefix
        self.log: list[Sent] = []
        self.failed: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.max.bytes": 20_000_000,
                "delivery.timeout.ms": 180_000,
                **config,
            }
        )

    def send(self, messages: Iterable[Message], per_s: float = 0.0) -> None:
        """Hand over messages, ``per_s`` of them a second; 0 is as fast as they go."""
        started = time.monotonic()
        for n, message in enumerate(messages):
            if per_s:
                time.sleep(max(0.0, started + n / per_s - time.monotonic()))
            self._produce(message)
            self._producer.poll(0)

    def _produce(self, message: Message) -> None:
        def delivered(error: Any, record: Any) -> None:
            if error is None:
                self.log.append(Sent(message, record.partition(), record.offset()))
            else:
                self.failed.append(f"{message.topic}: {error}")

        while True:
            try:
                self._producer.produce(
                    self._prefix + message.topic,
                    key=message.key,
                    value=message.value,
                    headers=list(message.headers),
                    on_delivery=delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def put_raw(self, topic: str, partition: int, key: bytes, value: bytes) -> None:
        """Write what no shop writes; the log does not tell of it."""
        self._producer.produce(self._prefix + topic, value, key, partition)

    def flush(self, timeout_s: float = 120) -> None:
        """Return once every message has been acknowledged."""
        left = self._producer.flush(timeout_s)
        assert not left, f"{left} messages were not acknowledged"
        assert not self.failed, self.failed[:3]

    def in_background(self, messages: Iterable[Message], per_s: float) -> threading.Thread:
        """Send in a thread of its own, while faults happen."""
        thread = threading.Thread(target=self.send, args=(messages, per_s), daemon=True)
        thread.start()
        return thread
