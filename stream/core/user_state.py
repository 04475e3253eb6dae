"""UserState: what is known of one shopper, and its row in the table.

Sums of vectors are kept as they are (not centred, not normalised) with the sum of their weights,
decayed to ``as_of_ms``; so two states reached by the same events in any order are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.profile import HistoryItem, HistoryText, Profile
from stream.messages import Band, Trigger
from stream.settings import Settings

Vector = NDArray[np.float32]

#: Where events come from. Each keeps the offset up to which the state reflects it; a user record
#: arrives twice, as it is and with the vector of its interests.
SOURCES = ("clickstream", "searches", "reviews", "users", "interests")

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the fold depends on; changing them changes what a replay gives."""

    weights: Mapping[str, float]
    long_half_life_ms: float
    short_half_life_ms: float
    history_items: int
    history_texts: int
    event_id_memory: int
    max_future_ms: int
    purchase_exclusion_ms: float
    cooccurrence_items: int = 20
    #: Above what a wholesaler buys in a window: what is forgotten could be recommended again.
    exclusions_kept: int = 2000
    text_chars_kept: int = 80

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        return cls(
            weights=settings.weights,
            long_half_life_ms=settings.long_half_life_h * 3_600_000,
            short_half_life_ms=settings.short_half_life_h * 3_600_000,
            history_items=settings.history_items,
            history_texts=settings.history_texts,
            event_id_memory=settings.event_id_memory,
            max_future_ms=round(settings.max_future_s * 1000),
            purchase_exclusion_ms=settings.purchase_exclusion_days * DAY_MS,
            cooccurrence_items=settings.cooccurrence_items,
        )


class Interest(Struct, frozen=True, array_like=True):
    """A decayed sum of vectors (float32 bytes, shape (dim,)) and of their weights."""

    vector: bytes
    weight: float
    as_of_ms: int

    def array(self) -> Vector:
        return np.frombuffer(self.vector, np.float32)


class Act(Struct, frozen=True, array_like=True, order=True):
    """One act on an item; ``folded`` once the item's vector is in the interests."""

    event_time_ms: int
    item_id: str
    kind: str
    weight: float
    folded: bool


class TextAct(Struct, frozen=True, array_like=True, order=True):
    """One search: its beginning, and its vector as fp16 bytes."""

    event_time_ms: int
    text: str
    vector: bytes
    weight: float


class Stated(Struct, frozen=True, array_like=True):
    """What the shop states about the user (topic ``users``)."""

    updated_ms: int = 0
    personalize: bool = True
    region: str | None = None
    locale: str | None = None
    interests: str = ""
    interests_vector: bytes = b""


class UserState(Struct, frozen=True, array_like=True):
    """Everything kept of one user; new fields go last, with a default, and old rows still read.

    ``bought`` and ``disliked`` map items to event times; ``pending`` is the trigger of a
    recommendation that is due but not out; ``activity`` is models.activity.Activity as bytes.
    """

    offsets: tuple[int, ...] = (-1,) * len(SOURCES)
    long: Interest | None = None
    short: Interest | None = None
    acts: tuple[Act, ...] = ()
    texts: tuple[TextAct, ...] = ()
    bought: dict[str, int] = {}
    disliked: dict[str, int] = {}
    activity: bytes = b""
    event_ids: bytes = b""
    stated: Stated = Stated()
    seen_region: str | None = None
    seen_region_ms: int = 0
    pending: Trigger | None = None
    recommended_ms: int = 0
    band: Band | None = None
    assessed_window: int = -1


class BadRow(ValueError):
    """A stored row that this version cannot read."""


ROW_VERSION = 1
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UserState)


def to_row(state: UserState) -> bytes:
    """Return the row: a version byte, then MessagePack."""
    return bytes((ROW_VERSION,)) + _encoder.encode(state)


def from_row(row: bytes) -> UserState:
    """Return the state of a row; raises BadRow for a version that is not known here."""
    if not row or row[0] != ROW_VERSION:
        version = row[0] if row else "none"
        raise BadRow(f"expected a user row of version {ROW_VERSION}, got version {version}")
    try:
        return _decoder.decode(memoryview(row)[1:])
    except msgspec.DecodeError as error:
        raise BadRow(f"unreadable user row: {error}") from None


def profile_of(state: UserState, now_ms: int, rules: Rules) -> Profile:
    """Return what the recommender may know of the user now."""
    return Profile(
        items=_history(state),
        texts=_texts(state),
        long_interest=state.long.array() if state.long else None,
        long_weight=state.long.weight if state.long else 0.0,
        short_interest=state.short.array() if state.short else None,
        short_weight=state.short.weight if state.short else 0.0,
        exclude=excluded(state, now_ms, rules),
        region=state.stated.region or state.seen_region,
    )


def _history(state: UserState) -> tuple[HistoryItem, ...]:
    """One entry per item, at its latest act: the strongest act for it and the strongest against."""
    latest: dict[str, tuple[float, float, int]] = {}
    for act in state.acts:  # oldest first
        best, worst, _ = latest.pop(act.item_id, (0.0, 0.0, 0))
        span = (max(best, act.weight), min(worst, act.weight), act.event_time_ms)
        latest[act.item_id] = span
    return tuple(
        HistoryItem(item_id, best + worst, event_time_ms)
        for item_id, (best, worst, event_time_ms) in latest.items()
    )


def _texts(state: UserState) -> tuple[HistoryText, ...]:
    texts = [
        HistoryText("search", t.text, _fp16(t.vector), t.weight, t.event_time_ms)
        for t in state.texts
    ]
    stated = state.stated
    if stated.interests_vector:
        vector = _fp16(stated.interests_vector)
        interest = HistoryText("interest", stated.interests, vector, 1.0, stated.updated_ms)
        texts.insert(0, interest)
    return tuple(texts)


def _fp16(raw: bytes) -> Vector:
    return np.frombuffer(raw, "<f2").astype(np.float32)


def excluded(state: UserState, now_ms: int, rules: Rules) -> frozenset[str]:
    """Return the items that may not be recommended: bought of late, or disliked since liked."""
    oldest_ms = now_ms - rules.purchase_exclusion_ms
    bought = {item for item, at_ms in state.bought.items() if at_ms > oldest_ms}
    liked_ms = {
        act.item_id: act.event_time_ms
        for act in state.acts
        if act.kind in ("favorite", "add_to_cart", "purchase")
    }
    disliked = {item for item, at_ms in state.disliked.items() if liked_ms.get(item, -1) <= at_ms}
    return frozenset(bought | disliked)
