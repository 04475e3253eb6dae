"""What is left of a user, topic by topic; topics in memory. On Kafka's own files: tests/faults."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from stream import traces as module
from stream.engine.commits import LEDGER_KEY, Effect, names_key
from stream.engine.stores import stamp
from stream.settings import load_settings
from stream.topics import DAY_MS, TOPICS
from stream.traces import Trace, traces

SETTINGS = load_settings(topic_prefix="t.", state_prefix="v2-")
NOW_MS = 1_760_000_000_000
CHUNK, KEYS = LEDGER_KEY + b":000000", LEDGER_KEY + b"/000000"


def chunk(*effects: Effect) -> bytes:
    return stamp(3, msgspec.msgpack.encode(list(effects)))


class Topics:
    """One partition of each, and a consumer of it."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Any]] = defaultdict(list)
        self.configs: dict[str, dict[str, str]] = {}
        self._at = 0

    def put(self, topic: str, key: bytes, value: bytes | None) -> None:
        log = self.logs[topic]
        log.append(SimpleNamespace(key=key, value=value, offset=len(log)))

    def assign(self, places: Collection[TopicPartition]) -> None: ...

    async def seek_to_beginning(self, *_: TopicPartition) -> None:
        self._at = 0

    async def position(self, place: TopicPartition) -> int:
        return self._at

    async def beginning_offsets(self, places: Collection[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Collection[TopicPartition]) -> dict[Any, int]:
        return {place: len(self.logs[place.topic]) for place in places}

    async def getmany(self, place: TopicPartition, *, timeout_ms: int) -> dict[Any, Any]:
        found = self.logs[place.topic][self._at : self._at + 2]
        self._at += len(found)
        return {place: found}


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    topics = Topics()

    @asynccontextmanager
    async def reading(_: object) -> AsyncIterator[Topics]:
        yield topics

    async def partition_of(_: object, topic: str, key: bytes) -> TopicPartition:
        return TopicPartition(topic, 0)

    async def partitions_of(_: object, topic: str) -> list[int]:
        return [0]

    async def topic_configs(*_: object) -> dict[str, dict[str, str]]:
        return topics.configs

    for double in (reading, partition_of, partitions_of, topic_configs):
        monkeypatch.setattr(module, double.__name__, double)
    return topics


async def left(*keys: bytes) -> dict[str, Trace]:
    return {one.topic: one for one in await traces(SETTINGS, keys, NOW_MS)}


async def test_of_all_topics_that_tell_of_users_it_says_what_is_left(topics: Topics) -> None:
    found = await left(b"u1")
    assert set(found) == {spec.name for spec in TOPICS if spec.personal}
    assert {one.left for one in found.values()} == {"gone"}


async def test_a_value_behind_a_tombstone_is_told_of_until_it_is_compacted(topics: Topics) -> None:
    for key, value in ((b"u1", b"a"), (b"u2", b"b"), (b"u1", b"c"), (b"u1", None)):
        topics.put("t.v2-recommendations", key, value)
    assert (await left(b"u1"))["recommendations"] == Trace(
        "recommendations", "pending", 2, NOW_MS + 3 * DAY_MS
    )
    assert (await left(b"u1", b"u2"))["recommendations"].left == "held"
    # Compacted, but for the tombstone.
    del topics.logs["t.v2-recommendations"][:3]
    assert (await left(b"u1"))["recommendations"] == Trace(
        "recommendations", "pending", 0, NOW_MS + 2 * DAY_MS
    )


async def test_without_a_bound_on_compaction_none_is_told(topics: Topics) -> None:
    topics.put("t.users", b"u1", None)
    topics.configs["t.users"] = {"max.compaction.lag.ms": str(2**63 - 1)}
    assert (await left(b"u1"))["users"] == Trace("users", "pending", 0, None)


async def test_what_expires_is_kept_a_retention_and_a_segment_long(topics: Topics) -> None:
    topics.put("t.clickstream", b"u9", b"click")
    topics.put("t.v2-dead-letters", b"u9", b"click")
    topics.configs["t.v2-dead-letters"] = {"retention.ms": "-1"}
    found = await left(b"u1")
    assert found["clickstream"] == Trace("clickstream", "kept", 0, NOW_MS + 8 * DAY_MS)
    assert found["dead-letters"] == Trace("dead-letters", "kept", 0, None)


async def test_ledgers_beside_the_rows_are_looked_into(topics: Topics) -> None:
    topics.put("t.v2-user-state", CHUNK, chunk(Effect("e", "recommendations", b"u1", b"{}")))
    topics.put("t.v2-user-state", CHUNK, chunk())
    assert (await left(b"u1"))["user-state"].n_values == 1
    assert (await left(b"u2"))["user-state"].left == "gone"


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        (KEYS, stamp(1, msgspec.msgpack.encode([b"u0", b"u1"])), True),
        (KEYS, stamp(1, msgspec.msgpack.encode([b"u10"])), False),
        (CHUNK, chunk(Effect("", "churn-risk", b"u1", None)), True),
        (CHUNK, chunk(Effect("r", "review-insights", b"i", b'{"user_id":"u1"}')), True),
        (CHUNK, chunk(Effect("r", "review-insights", b"i", b'{"user_id":"u10"}')), False),
        (LEDGER_KEY, stamp(1, b"\x94"), False),
        (b"\xfferased:u1", stamp(1, b"7"), False),
    ],
)
def test_a_ledger_names_whom_it_is_about(key: bytes, value: bytes, named: bool) -> None:
    assert names_key(key, value, [b"u1"]) == named
