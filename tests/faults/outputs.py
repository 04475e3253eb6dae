"""Outputs: when each recommendation came, as an outside consumer sees it."""

from __future__ import annotations

import bisect
import itertools
import threading
import time

from confluent_kafka import Consumer, TopicPartition


class Outputs:
    """Follows ``recommendations`` and notes when each came, by this machine's monotonic clock."""

    def __init__(self, broker: str, prefix: str) -> None:
        self._at: list[float] = []
        self._stop = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": f"{prefix}watch",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        topic = f"{prefix}recommendations"
        numbers = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stop.is_set():
            records = self._consumer.consume(1000, 0.05)
            now = time.monotonic()
            self._at += [now for record in records if not record.error()]
        self._consumer.close()

    def first_after(self, moment: float, timeout_s: float) -> float:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            later = bisect.bisect_right(self._at, moment)
            if later < len(self._at):
                return self._at[later]
            time.sleep(0.05)
        raise AssertionError(f"no output within {timeout_s:g} s of the restart")

    def longest_pause_s(self, since: float, until: float) -> float:
        """Return the longest time without an output within a span."""
        within = [since, *(at for at in list(self._at) if since < at < until), until]
        return max(b - a for a, b in itertools.pairwise(within))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)
