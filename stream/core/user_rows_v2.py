"""Rows of version 2, as read: a version byte, a byte of flags, then all columns side by side."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stream.core.user_columns import (
    BANDS,
    ActColumns,
    PendingColumns,
    SumColumns,
    TextColumns,
    activity_of,
    acts_of,
    interest_of,
    pending_of,
    texts_of,
    time_of,
)
from stream.core.user_state import Faded, Stated, UserState


class _Row(Struct, frozen=True, array_like=True, gc=False):
    base_ms: int
    offsets: tuple[int, ...]
    activity: tuple[int | float | bytes, ...]
    event_ids: bytes
    acts: ActColumns | None
    long: SumColumns | None
    texts: tuple[TextColumns, ...]
    faded: tuple[Faded, ...]
    stated: Stated | None
    region: str | None
    region_ago: int
    pending: PendingColumns | None
    recommended_ago: int
    band: int


_decoder = msgspec.msgpack.Decoder(_Row)


def state_of(row: bytes) -> UserState:
    """Return the state of a row; raises for a damaged one what decoding may raise."""
    old = _decoder.decode(memoryview(row)[2:])
    base_ms = old.base_ms
    return UserState(
        offsets=old.offsets,
        long=interest_of(old.long, base_ms) if old.long else None,
        acts=acts_of(old.acts, base_ms) if old.acts else (),
        texts=texts_of(old.texts, base_ms),
        faded=old.faded,
        activity=activity_of(old.activity, base_ms) if old.activity else None,
        event_ids=old.event_ids,
        stated=old.stated or Stated(),
        seen_region=old.region,
        seen_region_ms=time_of(old.region_ago, base_ms),
        pending=pending_of(old.pending),
        recommended_ms=time_of(old.recommended_ago, base_ms),
        band=BANDS[old.band],
    )
