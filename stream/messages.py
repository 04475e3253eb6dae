"""What goes out and what travels between the tiers: one type per topic, and its bytes.

Public topics are JSON; derived topics are MessagePack, since vectors are bytes.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from itertools import accumulate
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from models.matches import FoundBy
from models.profile import RecommendedItem

SCHEMA_VERSION = 1

Band = Literal["low", "medium", "high"]


# --- recommendations -----------------------------------------------------------------------------


class Trigger(Struct, frozen=True, kw_only=True, gc=False):
    """The event that caused an output: its place in the source topic."""

    topic: str
    partition: int
    offset: int
    event_id: str
    event_time_ms: int


class ModelInfo(Struct, frozen=True, kw_only=True, gc=False):
    encoder: str
    index_version: str
    ranker: str


class Recommendation(Struct, frozen=True, kw_only=True, gc=False):
    """Topic ``recommendations``."""

    recommendation_id: str
    user_id: str
    generated_ms: int
    expires_ms: int
    trigger: Trigger
    items: list[RecommendedItem]
    cold_start: bool
    variant: str
    model: ModelInfo
    schema_version: int = SCHEMA_VERSION


# --- churn-risk ----------------------------------------------------------------------------------


class Driver(Struct, frozen=True, kw_only=True, gc=False):
    feature: str
    value: float
    contribution: float


class ChurnRisk(Struct, frozen=True, kw_only=True, gc=False):
    """Topic ``churn-risk``; ``trigger`` is absent when silence alone caused it."""

    assessment_id: str
    user_id: str
    assessed_ms: int
    probability: float
    horizon_days: float
    band: Band
    drivers: list[Driver]
    model: str
    previous_band: Band | None = None
    trigger: Trigger | None = None
    schema_version: int = SCHEMA_VERSION


# --- search-results ------------------------------------------------------------------------------


class FoundItem(Struct, frozen=True, kw_only=True, gc=False):
    """``source`` says what the item was found by."""

    item_id: str
    rank: int
    score: float
    source: FoundBy


class SearchResults(Struct, frozen=True, kw_only=True, gc=False):
    """Topic ``search-results``: the answer to one search; no items when nothing is for sale."""

    search_event_id: str
    query: str
    items: list[FoundItem]
    generated_ms: int
    model: ModelInfo
    schema_version: int = SCHEMA_VERSION


# --- review-insights -----------------------------------------------------------------------------


class ReviewInsight(Struct, frozen=True, kw_only=True):
    """Topic ``review-insights``: what one review says of its item.

    ``sentiment``, -1..1, is the text's alone; ``satisfaction``, 0..1, is the rating's where there
    is one, and else the probability that its writer is content.
    """

    review_event_id: str
    item_id: str
    user_id: str
    sentiment: float
    satisfaction: float
    model: str
    schema_version: int = SCHEMA_VERSION


# --- between the tiers ---------------------------------------------------------------------------


class SourcePlace(Struct, frozen=True, array_like=True, gc=False):
    """Where an event lay in its source topic; exact, since every topic has the same partitions."""

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    timestamp_ms: int


class ItemEmbedding(Struct, frozen=True, kw_only=True, gc=False):
    """Topic ``item-embeddings``: ``vector`` is ``dim`` little-endian fp16 numbers, unit length."""

    item_id: str
    encoder: str
    dim: int
    text_hash: bytes
    vector: bytes


class TextSentiment(Struct, frozen=True, array_like=True, gc=False):
    """What a model says of a review's text: the probability that its writer is content."""

    content: Annotated[float, Meta(ge=0, le=1)]
    model: str

    @property
    def sentiment(self) -> float:
        """Return -1 (surely discontent) to 1 (surely content), as the stars 1 to 5 are read."""
        return 2.0 * self.content - 1.0


class EmbeddedText(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Topic ``embedded-texts``: the source event as it came, and the vector of its text.

    ``sentiment`` is there for reviews, where the encode tier has a model for it.
    """

    kind: Literal["search", "review", "user"]
    source: SourcePlace
    event: bytes
    encoder: str
    dim: int
    vector: bytes
    sentiment: TextSentiment | None = None


class ItemTouch(Struct, frozen=True, array_like=True, gc=False):
    """One user's first act on an item, beside the items of the user's recent acts.

    The item stage counts the pairs (item_id, other); ``weight`` feeds popularity, and
    ``first`` says whether the user is new to the item (popularity counts repeats, pairs don't).
    """

    item_id: str
    others: list[str]
    weight: float
    first: bool
    event_time_ms: int
    region: str | None


class Beside(Struct, frozen=True, array_like=True, gc=False):
    """The other side of a touch: ``item_id`` was taken beside each of ``others``."""

    item_id: str
    others: list[str]
    event_time_ms: int


class ItemPairs(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one micro-batch of one user partition means to the items of one item partition: those
    of ``touches``, and the ``others`` of ``beside``. ``sequence`` grows by batch, so a repeat after
    a crash is recognised. Topic ``item-pairs`` held this as it is before it held PackedPairs."""

    source_partition: int
    sequence: int
    touches: list[ItemTouch]
    beside: list[Beside] = []


class PackedPairs(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Topic ``item-pairs``: ItemPairs by columns, little-endian.

    ``items`` and ``others`` are places in ``item_ids``, of two bytes while it is short enough, else
    of four; ``n_others`` (uint16) says how many of the others are each touch's. Weights are
    float32, times int64; ``regions`` (uint16) are places in ``region_names``.
    """

    source_partition: int
    sequence: int
    item_ids: list[str]
    items: bytes
    n_others: bytes
    others: bytes
    weights: bytes
    first: bytes
    times_ms: bytes
    region_names: list[str | None]
    regions: bytes
    beside_items: bytes
    beside_n_others: bytes
    beside_others: bytes
    beside_times_ms: bytes

    def unpacked(self) -> ItemPairs:
        """Return the pairs; raises ValueError or IndexError where the columns do not agree."""
        touches = zip(
            *self._beside(self.items, self.n_others, self.others),
            _numbers("f", self.weights),
            map(bool, self.first),
            _numbers("q", self.times_ms),
            [self.region_names[n] for n in _numbers("H", self.regions)],
            strict=True,
        )
        beside = zip(
            *self._beside(self.beside_items, self.beside_n_others, self.beside_others),
            _numbers("q", self.beside_times_ms),
            strict=True,
        )
        return ItemPairs(
            source_partition=self.source_partition,
            sequence=self.sequence,
            touches=[ItemTouch(*touch) for touch in touches],
            beside=[Beside(*told) for told in beside],
        )

    def _beside(
        self, items: bytes, n_others: bytes, others: bytes
    ) -> tuple[list[str], list[list[str]]]:
        ends = list(accumulate(_numbers("H", n_others)))
        names = self._names(others)
        if (ends[-1] if ends else 0) != len(names):
            raise ValueError("other items than are counted")
        begins = [0, *ends[:-1]] if ends else []
        return self._names(items), [names[a:b] for a, b in zip(begins, ends, strict=True)]

    def _names(self, places: bytes) -> list[str]:
        kind = "H" if len(self.item_ids) <= 1 << 16 else "I"
        return [self.item_ids[place] for place in _numbers(kind, places)]


def _numbers(kind: str, raw: bytes) -> list[Any]:
    """Return little-endian numbers; of few, numpy's arrays would take longer to make.

    Raises ValueError where a part of a number is left over.
    """
    numbers = array(kind, raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


class ItemNeighbours(Struct, frozen=True, kw_only=True, gc=False):
    """Topic ``item-neighbours``: decayed counts of an item as of ``as_of_ms``.

    ``n_users`` is the decayed count of users who took the item; ``neighbours`` holds
    (other item, decayed count of users who took both), largest first. ``popularity`` decays
    faster, and is split by region in ``regions``; ``lasting`` is of the same acts and decays as
    the other counts do (0 from older workers).
    """

    item_id: str
    as_of_ms: int
    n_users: float
    neighbours: list[tuple[str, float]]
    popularity: float
    regions: dict[str, float]
    lasting: float = 0.0


def to_message(value: Struct) -> bytes:
    """Return the bytes of a value for its topic."""
    if isinstance(value, Recommendation | ChurnRisk | SearchResults | ReviewInsight):
        return msgspec.json.encode(value)
    return msgspec.msgpack.encode(value)


class BadDerived(ValueError):
    """A derived message of another version or encoder, or damaged."""


_embedding = msgspec.msgpack.Decoder(ItemEmbedding)
_text = msgspec.msgpack.Decoder(EmbeddedText)
_pairs = msgspec.msgpack.Decoder(ItemPairs)
_packed_pairs = msgspec.msgpack.Decoder(PackedPairs)
#: MessagePack's mark of a short array; that of a short map, as ItemPairs is, lies below.
_ARRAY = 0x90
_neighbours = msgspec.msgpack.Decoder(ItemNeighbours)


def _read(decoder: msgspec.msgpack.Decoder[Any], raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDerived(f"unreadable derived message: {error}") from None


def read_item_embedding(raw: bytes) -> ItemEmbedding:
    return _read(_embedding, raw)  # type: ignore[no-any-return]


def read_embedded_text(raw: bytes) -> EmbeddedText:
    return _read(_text, raw)  # type: ignore[no-any-return]


def read_item_pairs(raw: bytes) -> ItemPairs:
    """Return the pairs of a message, packed or as they were told before."""
    if raw[:1] < bytes((_ARRAY,)):
        return _read(_pairs, raw)  # type: ignore[no-any-return]
    packed: PackedPairs = _read(_packed_pairs, raw)
    try:
        return packed.unpacked()
    except (ValueError, IndexError) as error:
        raise BadDerived(f"unreadable pairs: {error}") from None


def read_item_neighbours(raw: bytes) -> ItemNeighbours:
    return _read(_neighbours, raw)  # type: ignore[no-any-return]


def to_fp16(vector: NDArray[np.float32]) -> bytes:
    """Return a vector as little-endian fp16 bytes."""
    return vector.astype("<f2").tobytes()


def vector_of(message: ItemEmbedding | EmbeddedText, encoder: str) -> NDArray[np.float32]:
    """Return the vector, shape (dim,); raise BadDerived when another encoder made it."""
    if message.encoder != encoder:
        raise BadDerived(f"expected a vector of encoder {encoder}, got one of {message.encoder}")
    if len(message.vector) != 2 * message.dim:
        raise BadDerived(f"expected {message.dim} numbers, got {len(message.vector) // 2}")
    return np.frombuffer(message.vector, "<f2").astype(np.float32)


def output_id(kind: str, *cause: str | int) -> str:
    """Return the id of an output: the same cause always gives the same id."""
    digest = hashlib.sha256("\x1f".join((kind, *map(str, cause))).encode())
    return digest.hexdigest()[:32]
