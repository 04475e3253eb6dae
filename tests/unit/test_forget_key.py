"""Whoever has a pseudonym under one key is forgotten; topics in memory, a worker that obeys."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream import forget, latest
from stream.forget import forget_key
from stream.latest import held_keys
from stream.settings import load_settings

SETTINGS = load_settings(topic_prefix="t.")
CHANGELOG = "t.user-state"
HELD = (CHANGELOG, "t.recommendations", "t.churn-risk", "t.search-results")


class Topics:
    """Two partitions of each topic; ``obeys`` says whether there is a worker."""

    def __init__(self, obeys: bool = True) -> None:
        self.logs: dict[TopicPartition, list[Any]] = defaultdict(list)
        self.obeys = obeys

    def put(self, topic: str, key: str | bytes, value: bytes | None) -> None:
        raw = key.encode() if isinstance(key, str) else key
        place = TopicPartition(topic, sum(raw) % 2)
        log = self.logs[place]
        log.append(SimpleNamespace(key=raw, value=value, offset=len(log)))
        if topic == "t.users" and value is None and self.obeys:
            for held in HELD:
                self.put(held, raw, None)

    def newest(self, topic: str) -> dict[bytes, bytes | None]:
        records = [r for n in range(2) for r in self.logs[TopicPartition(topic, n)]]
        return {record.key: record.value for record in records}


class Reader:
    """What held_keys needs of aiokafka's consumer; gives a record at a time."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._at: dict[TopicPartition, int] = {}

    def assign(self, places: Collection[TopicPartition]) -> None:
        self._at = dict.fromkeys(places, -1)

    async def seek_to_beginning(self, *places: TopicPartition) -> None:
        self._at.update(dict.fromkeys(places, 0))

    async def position(self, place: TopicPartition) -> int:
        return self._at[place]

    async def end_offsets(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self._topics.logs[place]) for place in places}

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[Any, Any]:
        found = {}
        for place in places:
            at = self._at[place]
            found[place] = self._topics.logs[place][at : at + 1]
            self._at[place] = at + len(found[place])
        return found


class Writer:
    """What sends tombstones."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, topic: str, key: bytes, value: bytes | None) -> asyncio.Future[None]:
        self._topics.put(topic, key, value)
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        arrived.set_result(None)
        return arrived


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    topics = Topics()

    @asynccontextmanager
    async def reading(_: object) -> AsyncIterator[Reader]:
        yield Reader(topics)

    async def partitions_of(_: object, topic: str) -> list[int]:
        return [0, 1]

    monkeypatch.setattr(latest, "reading", reading)
    monkeypatch.setattr(latest, "partitions_of", partitions_of)
    monkeypatch.setattr(forget, "AIOKafkaProducer", lambda **_: Writer(topics))
    for key in ("old.a", "old.b", "new.a", "older.a"):
        topics.put(CHANGELOG, key, b"row")
        topics.put("t.recommendations", key, b"list")
    # Of one only what was stated is left, of another only a risk; one is forgotten already.
    topics.put("t.users", "old.c", b"stated")
    topics.put("t.churn-risk", "old.d", b"risk")
    topics.put(CHANGELOG, "old.e", b"row")
    topics.put(CHANGELOG, "old.e", None)
    return topics


async def test_only_keys_whose_newest_message_is_none_are_let_go(topics: Topics) -> None:
    assert await held_keys(SETTINGS, CHANGELOG, b"old.") == {b"old.a", b"old.b"}
    assert await held_keys(SETTINGS, "t.search-results", b"old.") == set()


async def test_all_under_a_key_are_forgotten_and_nobody_else(topics: Topics) -> None:
    assert await forget_key(SETTINGS, "old") == (4, 0)
    for topic in HELD:
        held = {key for key, value in topics.newest(topic).items() if value is not None}
        assert not {key for key in held if key.startswith(b"old.")}
    assert topics.newest(CHANGELOG)[b"new.a"] == topics.newest(CHANGELOG)[b"older.a"] == b"row"
    assert set(topics.newest("t.users")) == {b"old.a", b"old.b", b"old.c", b"old.d"}


async def test_without_a_worker_it_says_how_many_are_left(topics: Topics, monkeypatch) -> None:
    topics.obeys = False
    monkeypatch.setattr(forget, "_LOOK_AGAIN_S", 0.01)
    assert await forget_key(SETTINGS, "old", deadline_s=0.05) == (4, 3)


async def test_nobody_under_a_key_takes_no_time(topics: Topics) -> None:
    assert await forget_key(SETTINGS, "none") == (0, 0)
