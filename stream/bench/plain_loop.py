"""The plain loop of `bench mix`: lists by content without Faust, durable state, ids or reasons.

aiokafka -> msgspec -> one addition to the vectors of a window's users -> one search of an IVF-SQ8
-> one list a user. Searches are encoded unless they were before; reviews count for their item.

Started as ``python -m stream.bench.plain_loop JOB`` with the settings of a worker, where JOB is the
JSON of a ``Job``. Prints {"n_events", "n_lists", "cpu_s"}.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any

import faiss
import msgspec
import numpy as np
import torch
from aiokafka import AIOKafkaConsumer, TopicPartition

from models.bert_encoder import BertEncoder
from stream.connection import client_options
from stream.core.events import Interaction, Review, Search
from stream.delivery import Output
from stream.encoders import open_encoder
from stream.kafka_client import KafkaSender
from stream.messages import read_item_embedding, vector_of
from stream.settings import Settings, load_settings
from stream.topics import CLICKSTREAM, ITEM_EMBEDDINGS, RECOMMENDATIONS, REVIEWS, SEARCHES

_K, _WEIGHT, _N_LISTS, _N_PROBES = 20, 0.5, 1_024, 16
_FETCH_MS = 200

#: First and next offset by partition.
Ranges = dict[int, tuple[int, int]]


class Job(msgspec.Struct, frozen=True):
    """What to read, by topic; how many events make a window; under which prefix lists go out."""

    stored: dict[str, Ranges]
    window: int
    to_prefix: str


class Done(msgspec.Struct, frozen=True):
    """CPU seconds are those from the first fetch to the last list acknowledged."""

    n_events: int
    n_lists: int
    cpu_s: float


class PlainLoop:
    """Vectors of users, in memory, and what is found near them."""

    def __init__(self, encoder: BertEncoder, item_ids: list[str], vectors: Any) -> None:
        """``vectors``, shape (n, dim), are of unit length."""
        self._encoder = encoder
        self._item_ids, self._vectors = item_ids, vectors
        self._row_of = {item_id: row for row, item_id in enumerate(item_ids)}
        self._user_ids: list[str] = []
        self._place_of: dict[str, int] = {}
        self._users = torch.zeros((1_024, vectors.shape[1]))
        self._queries: dict[str, Any] = {}
        n_lists = min(_N_LISTS, max(1, len(vectors) // 40))
        index: Any = faiss.index_factory(
            vectors.shape[1], f"IVF{n_lists},SQ8", faiss.METRIC_INNER_PRODUCT
        )
        index.train(vectors)
        index.add(vectors)
        index.nprobe = min(_N_PROBES, n_lists)
        self._index = index

    def lists(self, events: list[Interaction | Search | Review]) -> list[Output]:
        """Return a list for each user of a window's events."""
        new = {
            event.query: None
            for event in events
            if isinstance(event, Search) and event.query not in self._queries
        }
        if new:
            self._queries |= zip(new, self._encoder.encode(list(new), "query"), strict=True)
        places = torch.tensor([self._place(event.user_id) for event in events])
        added = np.stack([self._vector(event) for event in events])
        self._users.index_add_(0, places, torch.from_numpy(added), alpha=_WEIGHT)
        touched = torch.unique(places)
        found = self._users[touched]
        found /= found.norm(dim=1, keepdim=True).clamp_min(1e-9)
        scores, rows = self._index.search(found.numpy(), _K)
        return [
            self._list(self._user_ids[place], rows_of_it, scores_of_it)
            for place, rows_of_it, scores_of_it in zip(
                touched.tolist(), rows.tolist(), scores.tolist(), strict=True
            )
        ]

    def _place(self, user_id: str) -> int:
        place = self._place_of.setdefault(user_id, len(self._place_of))
        if place == len(self._user_ids):
            self._user_ids.append(user_id)
            if place == len(self._users):
                self._users = torch.cat([self._users, torch.zeros_like(self._users)])
        return place

    def _vector(self, event: Interaction | Search | Review) -> Any:
        if isinstance(event, Search):
            return self._queries[event.query]
        return self._vectors[self._row_of[event.item_id]]

    def _list(self, user_id: str, rows: list[int], scores: list[float]) -> Output:
        items = [
            {"item_id": self._item_ids[row], "score": score}
            for row, score in zip(rows, scores, strict=True)
            if row >= 0
        ]
        value = msgspec.json.encode({"user_id": user_id, "items": items})
        return Output(RECOMMENDATIONS.name, user_id.encode(), value)


async def run(settings: Settings, job: Job) -> Done:
    """Read the catalogue, then what the job says."""
    encoder = open_encoder(settings)
    loop = PlainLoop(encoder, *await _catalogue(settings, encoder.encoder_id))
    encoder.encode(["warm up"], "query")
    decoders: dict[str, msgspec.json.Decoder[Any]] = {
        settings.topic_prefix + topic.name: msgspec.json.Decoder(kind)
        for topic, kind in ((CLICKSTREAM, Interaction), (SEARCHES, Search), (REVIEWS, Review))
    }
    sender = KafkaSender(settings.model_copy(update={"topic_prefix": job.to_prefix}))
    await sender.start()
    consumer, ends = await _at(settings, job.stored)
    try:
        n_events = n_lists = 0
        started_s = time.process_time()
        while await _left(consumer, ends):
            batches = await consumer.getmany(timeout_ms=_FETCH_MS, max_records=job.window)
            events = [
                decoders[place.topic].decode(record.value)
                for place, records in batches.items()
                for record in records
            ]
            if events:
                lists = loop.lists(events)
                await sender.send(lists)
                n_events, n_lists = n_events + len(events), n_lists + len(lists)
        return Done(n_events, n_lists, time.process_time() - started_s)
    finally:
        await consumer.stop()
        await sender.stop()


async def _catalogue(settings: Settings, encoder_id: str) -> tuple[list[str], Any]:
    places = range(settings.partitions)
    consumer, ends = await _at(settings, {ITEM_EMBEDDINGS.name: dict.fromkeys(places, (0, -1))})
    vectors: dict[str, Any] = {}
    try:
        while await _left(consumer, ends):
            for records in (await consumer.getmany(timeout_ms=_FETCH_MS)).values():
                for message in map(read_item_embedding, (record.value for record in records)):
                    vectors[message.item_id] = vector_of(message, encoder_id)
    finally:
        await consumer.stop()
    return list(vectors), np.stack(list(vectors.values()))


async def _at(settings: Settings, stored: Mapping[str, Ranges]) -> tuple[Any, dict[Any, int]]:
    """Return a consumer at the beginnings, and the ends by place; -1 is where a topic ends now."""
    ranges = {
        TopicPartition(settings.topic_prefix + topic, number): each
        for topic, of_it in stored.items()
        for number, each in of_it.items()
    }
    consumer: Any = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    consumer.assign(list(ranges))
    for place, (first, _) in ranges.items():
        consumer.seek(place, first)
    known = await consumer.end_offsets(list(ranges))
    return consumer, {tp: known[tp] if end < 0 else end for tp, (_, end) in ranges.items()}


async def _left(consumer: Any, ends: Mapping[Any, int]) -> bool:
    return any([await consumer.position(place) < end for place, end in ends.items()])


if __name__ == "__main__":
    job = msgspec.json.decode(sys.argv[1], type=Job)
    sys.stdout.write(msgspec.json.encode(asyncio.run(run(load_settings(), job))).decode())
