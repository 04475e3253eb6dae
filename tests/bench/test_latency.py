"""Act sent to list received, by a producer and a consumer of a shop's own, on Apache Kafka."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Outside, workers

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

N_ITEMS, N_USERS, ACTS_PER_S, SECONDS = 10_000, 2_000, 200, 40
#: The first acts find cold code and caches.
WARM_UP_S = 10.0
P99_MS = 250.0

ADJECTIVES = ("red", "blue", "warm", "light", "sturdy", "soft", "classic", "modern", "small")
NOUNS = ("boots", "jacket", "lamp", "teapot", "mug", "desk", "chair", "tent", "bag", "scarf")
ACTS = ("view", "click", "add_to_cart", "purchase")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Shop:
    """Items, and acts on them: 90 % clicks of all kinds, 8 % searches, 2 % reviews."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._random = random.Random(1)

    def fill(self) -> None:
        for number in range(N_ITEMS):
            words = (*(self._random.choice(ADJECTIVES) for _ in range(2)), self._noun())
            title = f"{' '.join(words)} {number}"
            item = {"item_id": f"i{number}", "title": title, "updated_ms": now_ms()}
            self._outside.send("items", f"i{number}", item)
        self._outside.flush()

    def act(self, event_id: str) -> None:
        user = f"u{self._random.randrange(N_USERS)}"
        event: dict[str, Any] = {"event_id": event_id, "user_id": user, "event_time_ms": now_ms()}
        kind = self._random.random()
        if kind < 0.9:
            # The square makes some items much more popular than others.
            item = f"i{int(N_ITEMS * self._random.random() ** 2)}"
            event |= {"item_id": item, "type": self._random.choice(ACTS)}
            self._outside.send("clickstream", user, event)
        elif kind < 0.98:
            event["query"] = f"{self._random.choice(ADJECTIVES)} {self._noun()}"
            self._outside.send("searches", user, event)
        else:
            event |= {"item_id": f"i{self._random.randrange(N_ITEMS)}", "rating": 4}
            event["text"] = f"very good and {self._random.choice(ADJECTIVES)}"
            self._outside.send("reviews", user, event)

    def _noun(self) -> str:
        return self._random.choice(NOUNS)


class Reader(threading.Thread):
    """Follows the recommendations and notes when the one for each act came, monotonic seconds."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self._consumer = outside.follow(["recommendations"])
        self._ended = threading.Event()
        self.came_s: dict[str, float] = {}

    def run(self) -> None:
        while not self._ended.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and not message.error() and message.value():
                trigger = json.loads(message.value())["trigger"]
                self.came_s.setdefault(trigger["event_id"], time.monotonic())

    def end(self) -> None:
        self._ended.set()
        self.join()


def send_acts(shop: Shop) -> dict[str, float]:
    """Send acts at an even rate; return when each was sent, monotonic seconds."""
    started, sent_s = time.monotonic(), dict[str, float]()
    while (passed := time.monotonic() - started) < SECONDS:
        while len(sent_s) < passed * ACTS_PER_S:
            event_id = f"e{len(sent_s)}"
            sent_s[event_id] = time.monotonic()
            shop.act(event_id)
        time.sleep(0.002)
    return sent_s


def test_ten_thousand_items_and_two_hundred_acts_a_second(
    apache_kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    with workers(apache_kafka, topic_prefix, tmp_path, PREFSTREAM_PARTITIONS="4") as running:
        outside = Outside(apache_kafka, topic_prefix)
        shop = Shop(outside)
        shop.fill()
        running.until(
            lambda: running.metric("preference", "prefstream_index_items") == N_ITEMS,
            "all items indexed",
            300,
        )
        reader = Reader(outside)
        reader.start()
        sent_s = send_acts(shop)
        time.sleep(5)
        reader.end()
    first_s = min(sent_s.values())
    latencies_ms = [
        1000 * (came_s - sent_s[event_id])
        for event_id, came_s in reader.came_s.items()
        if sent_s[event_id] - first_s >= WARM_UP_S
    ]
    p50, p95, p99 = np.percentile(latencies_ms, [50, 95, 99])
    sys.stdout.write(
        f"\n{len(sent_s)} acts at {ACTS_PER_S}/s, {len(reader.came_s)} lists, {N_ITEMS} items: "
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, max {max(latencies_ms):.0f} ms\n"
    )
    # Acts of one user that came close together share a list.
    assert len(reader.came_s) > 0.9 * len(sent_s)
    assert p99 <= P99_MS
