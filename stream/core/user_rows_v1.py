"""Rows of version 1, as read: float32 sums, fp16 texts, whole ids of what was bought."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
from msgspec import Struct

from models.activity import WINDOW_DAYS, Activity
from models.packed_vector import PackedSum, to_four_bits
from stream.core.user_state import (
    NO_PERIOD,
    PERIOD_MS,
    SOURCES,
    Act,
    Faded,
    Interest,
    Stated,
    TextAct,
    UserState,
    fade,
    rounded,
)
from stream.messages import Band, Trigger

#: Of each event id; version 2 keeps fewer of the same.
_ID_BYTES, _ID_BYTES_KEPT = 8, 6


class _Interest(Struct, frozen=True, array_like=True):
    vector: bytes
    weight: float
    as_of_ms: int


class _TextAct(Struct, frozen=True, array_like=True):
    event_time_ms: int
    text: str
    vector: bytes
    weight: float


class _State(Struct, frozen=True, array_like=True):
    offsets: tuple[int, ...] = ()
    long: _Interest | None = None
    short: _Interest | None = None
    acts: tuple[Act, ...] = ()
    texts: tuple[_TextAct, ...] = ()
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


_ACTIVITY = struct.Struct(f"<4q5Q4d{WINDOW_DAYS // 8}s")
_decoder = msgspec.msgpack.Decoder(_State)


def state_of(row: bytes) -> UserState:
    """Return the state of a row; raises msgspec.DecodeError or ValueError for a damaged one."""
    old = _decoder.decode(memoryview(row)[1:])
    _check(old)
    ids = old.event_ids
    return UserState(
        offsets=old.offsets,
        long=None if old.long is None else _interest(old.long),
        acts=tuple(msgspec.structs.replace(act, weight=rounded(act.weight)) for act in old.acts),
        texts=tuple(
            TextAct(t.event_time_ms, t.text, _four_bits(t.vector), rounded(t.weight), folded=True)
            for t in old.texts
        ),
        faded=_faded(old),
        activity=_activity(old.activity) if old.activity else None,
        event_ids=b"".join(ids[i : i + _ID_BYTES_KEPT] for i in range(0, len(ids), _ID_BYTES)),
        stated=msgspec.structs.replace(
            old.stated, interests_vector=_four_bits(old.stated.interests_vector)
        ),
        seen_region=old.seen_region,
        seen_region_ms=old.seen_region_ms,
        pending=old.pending,
        recommended_ms=old.recommended_ms,
        band=old.band,
    )


def _check(old: _State) -> None:
    """Raise ValueError for what a row of version 2 could not say."""
    if old.pending and old.pending.topic not in SOURCES:
        raise ValueError("a trigger of no topic that is read")


def _activity(raw: bytes) -> Activity:
    if len(raw) != _ACTIVITY.size:
        raise ValueError(f"expected {_ACTIVITY.size} bytes of activity, got {len(raw)}")
    *fields, days = _ACTIVITY.unpack(raw)
    return Activity._make((*fields, int.from_bytes(days, "little")))


def _interest(old: _Interest) -> Interest:
    packed = PackedSum.of(np.frombuffer(old.vector, np.float32), 0)
    return Interest(packed.values, packed.steps, packed.unit, rounded(old.weight), old.as_of_ms)


def _four_bits(fp16: bytes) -> bytes:
    return to_four_bits(np.frombuffer(fp16, "<f2").astype(np.float32)) if fp16 else b""


def _faded(old: _State) -> tuple[Faded, ...]:
    """Return what was bought or disliked by acts that are no longer kept."""
    acted = {(act.kind, act.item_id) for act in old.acts}
    bought = [
        (at_ms // PERIOD_MS, item_id)
        for item_id, at_ms in old.bought.items()
        if ("purchase", item_id) not in acted
    ]
    disliked = [
        (NO_PERIOD, item_id) for item_id in old.disliked if ("dislike", item_id) not in acted
    ]
    return fade((), bought + disliked)
