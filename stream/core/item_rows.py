"""ItemState and PairsLedger <-> bytes of a table row: a version byte, then MessagePack."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from stream.core.item_state import ItemState, PairsLedger
from stream.core.user_rows import BadRow, NewerRow

VERSION = 1

Value = TypeVar("Value")


class _StateRow(Struct, frozen=True, array_like=True):
    item_id: str
    as_of_ms: int
    n_users: float
    others: list[str]
    counts: bytes  # little-endian float32, one per other: half of what MessagePack floats take
    popularity: float
    regions: dict[str, float]
    offset: int
    # Rows of older workers end before one of these.
    lasting: float = 0.0
    told_ms: int = 0
    untold_taken: float = 0.0
    untold_popular: float = 0.0


_states = msgspec.msgpack.Decoder(_StateRow)
_ledgers = msgspec.msgpack.Decoder(dict[int, int])


def to_row(state: ItemState) -> bytes:
    """Return the row of a state."""
    counts = np.fromiter(state.neighbours.values(), "<f4", len(state.neighbours))
    row = _StateRow(
        item_id=state.item_id,
        as_of_ms=state.as_of_ms,
        n_users=state.n_users,
        others=list(state.neighbours),
        counts=counts.tobytes(),
        popularity=state.popularity,
        regions=dict(state.regions),
        offset=state.offset,
        lasting=state.lasting,
        told_ms=state.told_ms,
        untold_taken=state.untold_taken,
        untold_popular=state.untold_popular,
    )
    return bytes((VERSION,)) + msgspec.msgpack.encode(row)


def from_row(raw: bytes) -> ItemState:
    """Return the state of a row; raise NewerRow for a version not known here, or BadRow."""
    row = _decoded(_states, raw)
    if len(row.counts) != 4 * len(row.others):
        raise BadRow(f"expected {len(row.others)} counts, got {len(row.counts) // 4}")
    counts = np.frombuffer(row.counts, "<f4").tolist()
    return ItemState(
        item_id=row.item_id,
        as_of_ms=row.as_of_ms,
        n_users=row.n_users,
        neighbours=dict(zip(row.others, counts, strict=True)),
        popularity=row.popularity,
        regions=row.regions,
        offset=row.offset,
        lasting=row.lasting,
        told_ms=row.told_ms,
        untold_taken=row.untold_taken,
        untold_popular=row.untold_popular,
    )


def ledger_to_row(ledger: PairsLedger) -> bytes:
    """Return the row of a ledger."""
    return bytes((VERSION,)) + msgspec.msgpack.encode(dict(ledger.sequences))


def ledger_from_row(raw: bytes) -> PairsLedger:
    """Return the ledger of a row; raise NewerRow for a version not known here, or BadRow."""
    sequences = _decoded(_ledgers, raw)
    return PairsLedger(sequences)


def _decoded(decoder: msgspec.msgpack.Decoder[Value], raw: bytes) -> Value:
    if not raw or not raw[0]:
        raise BadRow(f"expected an item row, got {len(raw)} bytes")
    if raw[0] > VERSION:
        raise NewerRow(
            f"expected an item row of version {VERSION}, got version {raw[0]}: "
            "was it written by a newer prefstream?"
        )
    try:
        return decoder.decode(raw[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRow(f"damaged item row: {error}") from None
