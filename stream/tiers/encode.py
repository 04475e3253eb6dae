"""The encode tier: the BERT encoder between the texts that come in and the preference tier."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from models.bert_encoder import BertEncoder
from models.encoder import EncoderUnavailable, TextEncoder
from models.sentiment import SentimentModel
from models.vector_cache import VectorCache
from models.versions import chosen
from stream.agents.encode import Encode
from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.connection import client_options
from stream.dead_letters import StormGauge
from stream.delivery import SourceMessage
from stream.encoders import open_encoder
from stream.engine.app import add_agent, new_app
from stream.messages import BadDerived, read_item_embedding
from stream.model_watch import ModelWatch, Ready, Watched, watched_encoder
from stream.settings import Settings
from stream.tiers.base import Background, Parts, wall_clock_ms
from stream.topic_names import full_name
from stream.topics import ITEM_EMBEDDINGS, ITEMS, REVIEWS, SEARCHES, USERS
from stream.trained import open_sentiment_model

log = logging.getLogger(__name__)

GAUGES_TICK_S = 1.0
BATCHES_AT_ONCE = 2
#: A device that is lost for longer than these tries take ends the worker.
ENCODER_TRIES = 6


class EncodeTier:
    """Owns the model, and no state: any number of them share the work by partitions."""

    topics = (ITEMS.name, SEARCHES.name, REVIEWS.name, USERS.name)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.app = new_app(parts.settings, "encode")
        self._background = Background(self.app)
        self._counted = [0, 0, 0]
        self._fallbacks: Counter[str] = Counter()

    async def start(self) -> None:
        """Load the model, and learn which items have their vector already.

        Raises OtherEncoder when all that there are were made by another one.
        """
        settings = self._parts.settings
        encoder = await asyncio.to_thread(open_encoder, settings)
        sentiment = sentiment_model(settings, encoder.encoder_id, encoder.dim)
        cache = VectorCache(encoder, settings.encoder_cache)
        await self._restore(self._add_agent("encode_items", (ITEMS.name,), encoder, encoder))
        # Apart from the items: a query must not wait behind a catalogue that is being loaded. The
        # encoder lets queries go first between two of its passes.
        texts = (SEARCHES.name, REVIEWS.name, USERS.name)
        reading = self._add_agent("encode_texts", texts, encoder, cache, sentiment)
        self._show_device(encoder)
        self._background.start(self._show(encoder, cache))
        self._background.start(self._model_watch(encoder, reading, sentiment).run())

    def _model_watch(
        self, encoder: TextEncoder, reading: Encode, sentiment: SentimentModel | None
    ) -> ModelWatch:
        settings = self._parts.settings
        watch = ModelWatch(self._parts.metrics, settings.model_check_s, wall_clock_ms)

        def ready(folder: Path) -> Ready:
            model = open_sentiment_model(folder, encoder.encoder_id, encoder.dim)

            async def use() -> None:
                reading.read_by(model)

            return Ready(model.name, use)

        if sentiment is not None:
            folder = Path(settings.sentiment_model)
            watch.add(Watched("sentiment", folder, sentiment.name, ready))
        own = watched_encoder(settings.encoder, settings.encoder_sha256, encoder.encoder_id)
        if own is not None:
            watch.add(own)
        return watch

    def _add_agent(
        self,
        name: str,
        topics: Sequence[str],
        encoder: TextEncoder,
        queries: TextEncoder,
        sentiment: SentimentModel | None = None,
    ) -> Encode:
        parts, settings = self._parts, self._parts.settings
        failures = Failures(parts.dead_letters, "encode")
        tracing, report = parts.watched("encode")
        stage = Encode(
            encoder,
            queries,
            parts.sender,
            failures,
            report,
            tracing=tracing,
            sentiment=sentiment,
        )

        async def process(batch: Sequence[SourceMessage]) -> None:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(EncoderUnavailable),
                stop=stop_after_attempt(ENCODER_TRIES),
                wait=wait_exponential_jitter(initial=0.5, max=30),
                before_sleep=before_sleep_log(log, logging.WARNING),
                reraise=True,
            ):
                with attempt:
                    await stage.process(batch)

        add_agent(
            self.app,
            settings,
            name,
            topics,
            Guard(process, stage.reject, failures, StormGauge()),
            wait_s=settings.batch_wait_ms / 1000,
            # What is encoded is sent on before more is taken: progress can be seen, and kept.
            max_events=BATCHES_AT_ONCE * settings.encoder_batch,
        )
        return stage

    async def stop(self) -> None:
        await self._background.stop()

    async def _restore(self, stage: Encode) -> None:
        """Read what ``item-embeddings`` holds now; what comes later, this group writes itself."""
        settings = self._parts.settings
        topic = full_name(settings, ITEM_EMBEDDINGS.name)
        places = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer: Any = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            n_items = 0
            while [place for place in places if await consumer.position(place) < ends[place]]:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    n_items += len(records)
                    for record in records:
                        _restore_one(stage, record)
            log.info("restored the hashes of item texts: n_records=%d", n_items)
            stage.require_own_vectors()
        finally:
            await consumer.stop()

    async def _show(self, encoder: BertEncoder, cache: VectorCache) -> None:
        metrics = self._parts.metrics
        while True:
            now = [cache.hits, cache.misses, encoder.n_truncated]
            hits, misses, truncated = (
                n - before for n, before in zip(now, self._counted, strict=True)
            )
            self._counted = now
            metrics.count_cache(hits, misses)
            metrics.encoder_truncated.inc(truncated)
            self._show_device(encoder)
            await asyncio.sleep(GAUGES_TICK_S)

    def _show_device(self, encoder: BertEncoder) -> None:
        metrics = self._parts.metrics
        metrics.show_encoder(encoder.encoder_id, encoder.device)
        fallbacks: Counter[str] = Counter(encoder.fallbacks)
        for fallback, n in (fallbacks - self._fallbacks).items():
            metrics.encoder_fallbacks.labels(fallback).inc(n)
        self._fallbacks = fallbacks
        name = f"{encoder.encoder_id} on {encoder.device}"
        self._parts.readiness.set("model", True, name)


def sentiment_model(settings: Settings, encoder_id: str, dim: int) -> SentimentModel | None:
    """Return the model that the settings name, None without one; raises ModelError for one that
    reads the vectors of another encoder."""
    if not settings.sentiment_model:
        return None
    return open_sentiment_model(chosen(Path(settings.sentiment_model)), encoder_id, dim)


def _restore_one(stage: Encode, record: Any) -> None:
    item_id = (record.key or b"").decode(errors="replace")
    try:
        embedding = None if record.value is None else read_item_embedding(record.value)
    except BadDerived:  # written by another version: the item is encoded again
        embedding = None
    stage.restore(item_id, embedding)
