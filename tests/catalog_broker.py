"""The item topics as lists, and a consumer that reads them as aiokafka reads Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import builders
import msgspec
import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError

from stream.catalog import FOLLOWED
from stream.messages import ItemEmbedding, ItemNeighbours, to_fp16, to_message

DIM, ENCODER, PREFIX = 8, "e", "t."
N_PARTITIONS = 2


@dataclass(frozen=True)
class Logged:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class FakeBroker:
    """Topics as lists; ``begins`` says how much of a partition's start is gone."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[Logged]] = {
            TopicPartition(PREFIX + topic, p): [] for topic in FOLLOWED for p in range(N_PARTITIONS)
        }
        self.begins: dict[TopicPartition, int] = {}
        self.away = False
        self.n_connections = 0
        self.n_read = 0

    def put(
        self, topic: str, key: str | bytes | None, value: bytes | None, partition: int = 0
    ) -> Logged:
        tp = TopicPartition(PREFIX + topic, partition)
        raw_key = key.encode() if isinstance(key, str) else key
        record = Logged(tp.topic, partition, len(self.logs[tp]), raw_key, value)
        self.logs[tp].append(record)
        return record

    def put_item(self, item_id: str, partition: int = 0, **fields: Any) -> Logged:
        value = msgspec.json.encode(builders.item(item_id=item_id, **fields))
        return self.put("items", item_id, value, partition)

    def put_vector(self, item_id: str, axis: int = 0, **fields: Any) -> Logged:
        vector = np.eye(DIM, dtype=np.float32)[axis]
        base = {"encoder": ENCODER, "dim": DIM, "text_hash": b"h", "vector": to_fp16(vector)}
        message = ItemEmbedding(**{"item_id": item_id, **base, **fields})
        return self.put("item-embeddings", item_id, to_message(message), 1)

    def put_neighbours(self, item_id: str, others: Sequence[tuple[str, float]]) -> Logged:
        message = ItemNeighbours(
            item_id=item_id,
            as_of_ms=builders.NOW_MS,
            n_users=4.0,
            neighbours=list(others),
            popularity=1.0,
            regions={"north": 1.0},
        )
        return self.put("item-neighbours", item_id, to_message(message), 0)

    def recreate(self) -> None:
        for log in self.logs.values():
            log.clear()


class FakeConsumer:
    """Reads a FakeBroker as aiokafka's consumer reads Kafka, without a group."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._next: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        self._check()
        self._broker.n_connections += 1

    async def stop(self) -> None:
        self._next.clear()

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._next = dict.fromkeys(partitions, -1)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._next[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._next[partition]

    async def beginning_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        self._check()
        return {tp: self._broker.begins.get(tp, 0) for tp in partitions}

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._check()
        return {tp: len(self._broker.logs[tp]) for tp in partitions}

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Logged]]:
        self._check()
        await asyncio.sleep(0)
        batches = {}
        for tp, start in self._next.items():
            log = self._broker.logs[tp]
            if start > len(log):
                raise OffsetOutOfRangeError({tp: start})
            if log[start:]:
                batches[tp] = log[start : start + max_records]
                self._next[tp] = start + len(batches[tp])
                self._broker.n_read += len(batches[tp])
        if not batches:
            await asyncio.sleep(min(timeout_ms / 1000, 0.02))
        return batches

    def _check(self) -> None:
        if self._broker.away:
            raise KafkaConnectionError("no broker")
