"""items, searches, reviews, users -> item-embeddings, embedded-texts: the only stage with BERT."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.encoder import Side, TextEncoder
from models.sentiment import SentimentModel, polarity
from stream.agents.failures import Failures
from stream.agents.reports import BatchReport, Report
from stream.core.events import (
    BadEvent,
    Item,
    Review,
    Search,
    User,
    parse_item,
    parse_review,
    parse_search,
    parse_user,
)
from stream.delivery import Headers, Output, Sender, SourceMessage
from stream.messages import (
    EmbeddedText,
    ItemEmbedding,
    SourcePlace,
    TextSentiment,
    to_fp16,
    to_message,
)
from stream.spaces import OtherEncoder, space_of
from stream.topics import EMBEDDED_TEXTS, ITEM_EMBEDDINGS, ITEMS
from stream.tracing import Tracing

#: Longer texts are cut here; what the model reads of the rest is its own limit's matter.
MAX_CHARS = 20_000
#: An event goes on beside its vector, in a message that a broker takes by default (1 MiB).
MAX_EVENT_BYTES = 1_000_000

Kind = Literal["item", "search", "review", "user"]
_KINDS: dict[str, Kind] = {
    "items": "item",
    "searches": "search",
    "reviews": "review",
    "users": "user",
}
#: Queries and stated interests are what is searched with; items and reviews what is found.
_SIDES: dict[Kind, Side] = {
    "item": "passage",
    "review": "passage",
    "search": "query",
    "user": "query",
}
_PARSERS: dict[str, Callable[[bytes | None, bytes | None], Item | Search | Review | User]] = {
    "items": parse_item,
    "searches": parse_search,
    "reviews": parse_review,
    "users": parse_user,
}


def hash_of_text(text: str) -> bytes:
    """Return what tells an item's text from the one whose vector is published."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def item_text(item: Item) -> str:
    """Return what the encoder reads of an item."""
    parts = [item.title, item.brand or "", " ".join(item.categories), " ".join(item.tags)]
    return ". ".join(part for part in (*parts, item.description or "") if part)[:MAX_CHARS]


def text_of(event: Item | Search | Review | User) -> str:
    """Return what the encoder reads of an event; empty when there is nothing to read."""
    if isinstance(event, Item):
        return item_text(event)
    if isinstance(event, Search):
        return event.query[:MAX_CHARS]
    if isinstance(event, Review):
        return ". ".join(part for part in (event.title, event.text) if part)[:MAX_CHARS]
    return "; ".join(event.interests)[:MAX_CHARS]


def _parse(message: SourceMessage) -> Item | Search | Review | User:
    """Return the event of a message; raise BadEvent where it cannot be passed on."""
    event = _PARSERS[message.topic](message.value, message.key)
    n_bytes = len(message.value or b"")
    if n_bytes > MAX_EVENT_BYTES and not isinstance(event, Item):
        raise BadEvent(f"expected at most {MAX_EVENT_BYTES} bytes, got {n_bytes}")
    return event


@dataclass(frozen=True, slots=True)
class _Job:
    """A text to encode, and where its vector goes."""

    message: SourceMessage
    kind: Kind
    text: str
    item_id: str = ""
    text_hash: bytes = b""


class Encode:
    """Encodes the texts of a micro-batch in one go and sends their vectors on.

    Delivery is at least once, and a repeat is harmless: an item's vector replaces itself, and a
    text carries the place of its event, by which the preference tier knows it again.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        queries: TextEncoder,
        sender: Sender,
        failures: Failures,
        report: Report,
        *,
        tracing: Tracing | None = None,
        sentiment: SentimentModel | None = None,
    ) -> None:
        """``queries`` encodes what is searched with; a cache in front of ``encoder``, usually.

        ``sentiment`` reads reviews, by vectors of ``encoder``; None: nothing is said of them.
        """
        self._encoder = encoder
        self._queries = queries
        self._sender = sender
        self._failures = failures
        self._report = report
        self._tracing = tracing
        self._sentiment = sentiment
        self._published: dict[str, bytes] = {}
        self._foreign: dict[str, str] = {}

    def read_by(self, sentiment: SentimentModel) -> None:
        """Have another model read reviews, from the next micro-batch on."""
        self._sentiment = sentiment

    def restore(self, item_id: str, embedding: ItemEmbedding | None) -> None:
        """Note what ``item-embeddings`` holds, so that an unchanged text is not encoded again."""
        self._published.pop(item_id, None)
        self._foreign.pop(item_id, None)
        if embedding is None:
            return
        if embedding.encoder == self._encoder.encoder_id:
            self._published[item_id] = embedding.text_hash
        else:  # it has overwritten ours, and nobody here can use it
            self._foreign[item_id] = space_of(embedding.encoder, embedding.dim)

    def require_own_vectors(self) -> None:
        """Raise OtherEncoder when ``item-embeddings`` holds vectors, and none of our encoder.

        Whoever reads them, and the users' rows that were folded from them, is of the other encoder:
        it could use nothing of what would be written here.
        """
        if self._foreign and not self._published:
            raise OtherEncoder(
                f"all of {len(self._foreign)} item vectors",
                space_of(self._encoder.encoder_id, self._encoder.dim),
                " and ".join(sorted(set(self._foreign.values()))),
            )
        self._foreign.clear()

    async def process(self, batch: Sequence[SourceMessage]) -> None:
        """Return when the vectors of the batch have arrived."""
        started = perf_counter()
        report = BatchReport("encode", len(batch))
        outputs: list[Output] = []
        jobs = self._jobs(batch, outputs, report)
        report.seconds["parse"] = perf_counter() - started
        encoding = perf_counter()
        vectors = await self._vectors(jobs)
        report.seconds["encode"] = perf_counter() - encoding
        sentiments = await self._sentiments(jobs, vectors, report)
        for job, vector, sentiment in zip(jobs, vectors, sentiments, strict=True):
            outputs.append(self._output(job, vector, sentiment))
            report.texts[job.kind] += 1
        sending = perf_counter()
        await self._sender.send(outputs)
        report.seconds["publish"] = perf_counter() - sending
        for job in jobs:
            if job.kind == "item":
                self._published[job.item_id] = job.text_hash
        report.outputs.update(output.topic for output in outputs)
        self._report(report)

    async def reject(self, message: SourceMessage, error: Exception) -> None:
        """Dead-letter a message that could not be encoded."""
        report = BatchReport("encode", 1)
        await self._sender.send([self._failures.effect(message, error, report).output()])
        self._report(report)

    def _jobs(
        self, batch: Sequence[SourceMessage], outputs: list[Output], report: BatchReport
    ) -> list[_Job]:
        items: dict[str, _Job] = {}
        texts: list[_Job] = []
        for message in batch:
            if message.value is None and message.topic in ("items", "users"):
                self._tombstone(message, items, outputs, report)
                continue
            try:
                event = _parse(message)
            except BadEvent as error:
                # The preference tier reads users itself: one dead letter is enough.
                if message.topic != "users":
                    outputs.append(self._failures.effect(message, error, report).output())
                continue
            job = self._job(message, event)
            if isinstance(event, Item):
                # Only the newest of a batch: it overwrites the others, also when it says again
                # what is published already.
                items.pop(event.item_id, None)
            if job is None:
                report.count(message.topic, "unchanged")
                continue
            report.count(message.topic, "encoded")
            if job.kind == "item":
                items[job.item_id] = job
            else:
                texts.append(job)
        return [*items.values(), *texts]

    def _job(self, message: SourceMessage, event: Item | Search | Review | User) -> _Job | None:
        kind, text = _KINDS[message.topic], text_of(event)
        if isinstance(event, Item):
            text_hash = hash_of_text(text)
            if self._published.get(event.item_id) == text_hash:
                return None
            return _Job(message, kind, text, event.item_id, text_hash)
        # Who wants no profile is not read either.
        if isinstance(event, User) and not (text and event.personalize):
            return None
        return _Job(message, kind, text)

    def _tombstone(
        self,
        message: SourceMessage,
        items: dict[str, _Job],
        outputs: list[Output],
        report: BatchReport,
    ) -> None:
        report.count(message.topic, "removed")
        if message.topic != ITEMS.name or message.key is None:
            return
        item_id = message.key.decode(errors="replace")
        items.pop(item_id, None)
        self._published.pop(item_id, None)
        outputs.append(Output(ITEM_EMBEDDINGS.name, message.key, None))

    async def _vectors(self, jobs: Sequence[_Job]) -> NDArray[np.float32]:
        vectors = np.empty((len(jobs), self._encoder.dim), np.float32)
        # Queries first: somebody waits for an answer to them.
        sides: tuple[tuple[Side, TextEncoder], ...] = (
            ("query", self._queries),
            ("passage", self._encoder),
        )
        for side, encoder in sides:
            rows = [row for row, job in enumerate(jobs) if _SIDES[job.kind] == side]
            if rows:
                texts = [jobs[row].text for row in rows]
                vectors[rows] = await asyncio.to_thread(encoder.encode, texts, side)
        return vectors

    async def _sentiments(
        self, jobs: Sequence[_Job], vectors: NDArray[np.float32], report: BatchReport
    ) -> list[TextSentiment | None]:
        """Return what the model says of each text, None of all but reviews."""
        said: list[TextSentiment | None] = [None] * len(jobs)
        # An empty text is no opinion.
        rows = [row for row, job in enumerate(jobs) if job.kind == "review" and job.text.strip()]
        # The batch keeps the model that it began with: another may be put in its place.
        model = self._sentiment
        if model is None or not rows:
            return said
        started = perf_counter()
        texts = [jobs[row].text for row in rows]
        content = await asyncio.to_thread(model.content, texts, vectors[rows])
        for row, probability in zip(rows, content.tolist(), strict=True):
            said[row] = TextSentiment(round(probability, 4), model.name)
            report.sentiments[polarity(probability)] += 1
        report.seconds["sentiment"] = perf_counter() - started
        return said

    def _output(
        self, job: _Job, vector: NDArray[np.float32], sentiment: TextSentiment | None
    ) -> Output:
        message = job.message
        encoder, dim = self._encoder.encoder_id, self._encoder.dim
        if job.kind == "item":
            embedding = ItemEmbedding(
                item_id=job.item_id,
                encoder=encoder,
                dim=dim,
                text_hash=job.text_hash,
                vector=to_fp16(vector),
            )
            return Output(ITEM_EMBEDDINGS.name, message.key, to_message(embedding))
        text = EmbeddedText(
            kind=job.kind,
            source=SourcePlace(
                message.topic, message.partition, message.offset, message.timestamp_ms
            ),
            event=message.value or b"",
            encoder=encoder,
            dim=dim,
            vector=to_fp16(vector),
            sentiment=sentiment,
        )
        headers: Headers = ()
        if self._tracing is not None:
            headers = self._tracing.carried(message, EMBEDDED_TEXTS.name)
        # The same partition as the event's: its user's state is there.
        return Output(
            EMBEDDED_TEXTS.name, message.key, to_message(text), message.partition, headers
        )
