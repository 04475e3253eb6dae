"""UserState <-> its row: a version byte, a byte of flags, then MessagePack of columns.

Version 2. Times are told as differences, ids without repeats and in six bits a character where
their letters allow it; vectors come as they are in the state. Rows of version 1 are read too.
"""

from __future__ import annotations

import struct
from itertools import accumulate, count
from math import copysign
from operator import add, sub
from typing import Any, Final, NamedTuple, get_args

import msgspec
from msgspec import Struct

from models.activity import WINDOW_DAYS, Activity
from stream.core import user_rows_v1
from stream.core.packed_ids import pack_ids, unpack_ids
from stream.core.user_state import (
    LATEST_MS,
    SOURCES,
    Act,
    Faded,
    Interest,
    Stated,
    TextAct,
    UserState,
)
from stream.messages import Band, Trigger

VERSION = 2
_HAS_PENDING = 1
_DUE, _NOT_DUE = bytes((VERSION, _HAS_PENDING)), bytes((VERSION, 0))
_BAND_NAMES: Final[tuple[Band | None, ...]] = (None, *get_args(Band))
_BANDS = {band: number for number, band in enumerate(_BAND_NAMES)}
_NO_STATED = Stated()
_SUM = struct.Struct("<ffH")
_ACTIVITY = struct.Struct("<4q5Q4d")


#: What reading bytes that nobody wrote may raise.
_DAMAGE = (
    msgspec.DecodeError,
    struct.error,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
)


class BadRow(ValueError):
    """A stored row that cannot be read."""


class NewerRow(BadRow):
    """A row of a version that this program does not know: it must not be written over."""


class _Acts(Struct, frozen=True, array_like=True, gc=False):
    """The acts, oldest first, by columns."""

    item_ids: bytes
    places: bytes  # in item_ids, one byte an act or two; empty when each has its own item
    kinds: bytes  # the same: number in kind_names * 2, plus 1 when folded
    kind_names: list[str]
    kind_weights: bytes
    times: list[int]  # the first as so much before the base, others after the one before


class _Body(Struct, frozen=True, array_like=True, gc=False):
    """``base_ms`` is the latest event time; ``*_ago`` are told from it, see ``_ago``."""

    base_ms: int
    offsets: tuple[int, ...]
    activity: tuple[int | float | bytes, ...]
    event_ids: bytes
    acts: _Acts | None
    long: tuple[bytes, bytes, int] | None
    texts: tuple[tuple[int, str, bytes, float, bool], ...]
    faded: tuple[Faded, ...]
    stated: Stated | None
    region: str | None
    region_ago: int


class _Row(_Body, frozen=True, array_like=True, gc=False):
    """The columns of the body, and behind them what is due and was done."""

    pending: tuple[int, int, int, str, int] | None
    recommended_ago: int
    band: int


class Body(NamedTuple):
    """The part of a row that is dear to write: all but what is due, and when something last was."""

    base_ms: int
    columns: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Row)
#: MessagePack's mark of an array of so many elements: one byte, for up to 15 of them.
_COLUMNS = bytes((0x90 | len(_Row.__struct_fields__),))
#: The most that MessagePack takes for a number.
_NUMBER_BYTES = 9


def to_row(state: UserState) -> bytes:
    """Return the row of a state."""
    return row_of(to_body(state), state)


def row_of(body: Body, state: UserState) -> bytes:
    """Return the row of a state whose body is known."""
    pending, base_ms = state.pending, body.base_ms
    return b"".join(
        (
            _DUE if pending else _NOT_DUE,
            _COLUMNS,
            body.columns,
            _encode(_pending_columns(pending) if pending else None),
            _encode(_ago(state.recommended_ms, base_ms)),
            _encode(_BANDS[state.band]),
        )
    )


def longest(body: Body, state: UserState, pending: Trigger | None) -> int:
    """Return what the row takes at most with ``pending`` due, and once that is done."""
    due = len(_encode(_pending_columns(pending) if pending else None))
    due += len(_encode(_ago(state.recommended_ms, body.base_ms)))
    done = 1 + _NUMBER_BYTES
    return len(_DUE) + len(_COLUMNS) + len(body.columns) + max(due, done) + 1


def to_body(state: UserState) -> Body:
    """Return the body of a state's row."""
    acts, long, stated, activity = state.acts, state.long, state.stated, state.activity
    base_ms = max(
        acts[-1].event_time_ms if acts else 0,
        activity.last_ms if activity else 0,
        long.as_of_ms if long else 0,
        state.seen_region_ms,
    )
    columns = _Body(
        base_ms,
        state.offsets,
        _activity_columns(activity, base_ms) if activity else (),
        state.event_ids,
        _act_columns(acts, base_ms) if acts else None,
        _sum_columns(long, base_ms) if long else None,
        tuple([_text_columns(text, base_ms) for text in state.texts]) if state.texts else (),
        state.faded,
        None if stated is _NO_STATED or stated == _NO_STATED else stated,
        state.seen_region,
        _ago(state.seen_region_ms, base_ms),
    )
    return Body(base_ms, _encode(columns)[1:])


def from_row(row: bytes) -> UserState:
    """Return the state of a row; raises NewerRow for a version not known here, or BadRow."""
    version = _version(row)
    try:
        if version == 1:
            return _checked(user_rows_v1.state_of(row))
        return _checked(_state(_decoder.decode(memoryview(row)[2:])))
    except _DAMAGE as error:
        raise BadRow(f"damaged user row of version {version}: {error}") from None


def has_pending(row: bytes) -> bool:
    """True when a recommendation is due to the row's user; raises as ``from_row`` does."""
    if _version(row) == 1:
        return from_row(row).pending is not None
    return bool(row[1] & _HAS_PENDING)


def _version(row: bytes) -> int:
    if len(row) < 2:
        raise BadRow(f"expected a user row, got {len(row)} bytes")
    if not 1 <= row[0] <= VERSION:
        raise NewerRow(
            f"expected a user row of version {VERSION} or earlier, got version {row[0]}: "
            "was it written by a newer prefstream?"
        )
    return row[0]


def _state(row: _Row) -> UserState:
    base_ms = row.base_ms
    return UserState(
        offsets=row.offsets,
        long=None if row.long is None else _interest(row.long, base_ms),
        acts=_acts(row.acts, base_ms) if row.acts else (),
        texts=tuple(
            [
                TextAct(base_ms - ago, t, v, weight, folded)
                for ago, t, v, weight, folded in row.texts
            ]
        ),
        faded=row.faded,
        activity=_activity(row.activity, base_ms) if row.activity else None,
        event_ids=row.event_ids,
        stated=row.stated or _NO_STATED,
        seen_region=row.region,
        seen_region_ms=_at(row.region_ago, base_ms),
        pending=_pending(row.pending),
        recommended_ms=_at(row.recommended_ago, base_ms),
        band=_BAND_NAMES[row.band],
    )


def _checked(state: UserState) -> UserState:
    """Return the state; raise ValueError if one of its times could not be written again."""
    times = [state.seen_region_ms, state.recommended_ms, *[t.event_time_ms for t in state.texts]]
    if state.long:
        times.append(state.long.as_of_ms)
    if state.acts:
        times += state.acts[0].event_time_ms, state.acts[-1].event_time_ms
    if min(times) < 0 or max(times) > LATEST_MS:
        raise ValueError("a time that no clock has")
    return state


def _act_columns(acts: tuple[Act, ...], base_ms: int) -> _Acts:
    item_ids = [act.item_id for act in acts]
    distinct = dict.fromkeys(item_ids)
    places = b""
    if len(distinct) < len(item_ids):
        place_of = dict(zip(distinct, count()))
        places = _small([place_of[item_id] for item_id in item_ids])
        item_ids = list(distinct)
    kinds, names, weights = _kind_columns(acts)
    times = [act.event_time_ms for act in acts]
    return _Acts(
        pack_ids(item_ids),
        places,
        kinds,
        names,
        weights,
        [base_ms - times[0], *map(sub, times[1:], times)],
    )


def _kind_columns(acts: tuple[Act, ...]) -> tuple[bytes, list[str], bytes]:
    """Return the acts' numbers, and name and weight of each number."""
    kinds: list[Any] = [act.kind for act in acts]
    weights = [act.weight for act in acts]
    weight_of: dict[Any, float] = dict(zip(kinds, weights, strict=True))
    if [weight_of[kind] for kind in kinds] == weights:
        names = list(weight_of)
    else:  # acts of a kind that weigh differently, as reviews do
        kinds = list(zip(kinds, weights, strict=True))
        weight_of = {kind: kind[1] for kind in kinds}
        names = [name for name, _ in weight_of]
    number_of = dict(zip(weight_of, count(0, 2)))
    numbers = [number_of[kind] for kind in kinds]
    folded = [act.folded for act in acts]
    if True in folded:
        numbers = list(map(add, numbers, folded))
    return _small(numbers), names, struct.pack(f"<{len(names)}f", *weight_of.values())


def _acts(columns: _Acts, base_ms: int) -> tuple[Act, ...]:
    n = len(columns.times)
    item_ids = unpack_ids(columns.item_ids)
    if columns.places:
        item_ids = [item_ids[place] for place in _numbers(columns.places, n)]
    numbers = _numbers(columns.kinds, n)
    weights = struct.unpack(f"<{len(columns.kind_names)}f", columns.kind_weights)
    first, *later = columns.times
    if not len(item_ids) == len(numbers) == n:
        raise ValueError("columns of different lengths")
    return tuple(
        map(
            Act,
            accumulate(later, initial=base_ms - first),
            item_ids,
            [columns.kind_names[number >> 1] for number in numbers],
            [weights[number >> 1] for number in numbers],
            [number & 1 == 1 for number in numbers],
        )
    )


def _text_columns(text: TextAct, base_ms: int) -> tuple[int, str, bytes, float, bool]:
    return base_ms - text.event_time_ms, text.text, text.vector, text.weight, text.folded


def _small(numbers: list[int]) -> bytes:
    """Return one byte a number, or two where one is above 255."""
    if max(numbers, default=0) < 256:
        return bytes(numbers)
    return struct.pack(f"<{len(numbers)}H", *numbers)


def _numbers(raw: bytes, n: int) -> bytes | tuple[int, ...]:
    return raw if len(raw) == n else struct.unpack(f"<{n}H", raw)


def _ago(at_ms: int, base_ms: int) -> int:
    """Return 0 for 0, never; else how long before the base, pushed up or down past 0."""
    if not at_ms:
        return 0
    return base_ms - at_ms + 1 if at_ms <= base_ms else base_ms - at_ms


def _at(ago: int, base_ms: int) -> int:
    if not ago:
        return 0
    return base_ms - ago + 1 if ago > 0 else base_ms - ago


def _activity_columns(activity: Activity, base_ms: int) -> tuple[int | float | bytes, ...]:
    first, last, first_bought, last_bought, *counts, spend, short, long, satisfaction, days = (
        activity
    )
    return (
        _ago(first, base_ms),
        _ago(last, base_ms),
        _ago(first_bought, base_ms),
        _ago(last_bought, base_ms),
        *counts,
        spend or _nothing(spend),
        short or _nothing(short),
        long or _nothing(long),
        satisfaction or _nothing(satisfaction),
        days.to_bytes((days.bit_length() + 7) // 8, "little"),
    )


def _nothing(zero: float) -> int | float:
    """Return a sum that is still 0 in one byte, as a whole number, unless it has a sign to keep."""
    return 0 if copysign(1, zero) > 0 else zero


def _activity(columns: tuple[Any, ...], base_ms: int) -> Activity:
    first, last, first_bought, last_bought, *numbers, days = columns
    if len(days) > WINDOW_DAYS // 8:
        raise ValueError(f"expected {WINDOW_DAYS // 8} bytes of days at most")
    # Packed, so that no number passes that is none or out of bounds.
    packed = _ACTIVITY.pack(
        _at(first, base_ms),
        _at(last, base_ms),
        _at(first_bought, base_ms),
        _at(last_bought, base_ms),
        *numbers,
    )
    return Activity._make((*_ACTIVITY.unpack(packed), int.from_bytes(days, "little")))


def _sum_columns(interest: Interest, base_ms: int) -> tuple[bytes, bytes, int]:
    head = _SUM.pack(interest.unit, interest.weight, len(interest.steps))
    return head + interest.steps, interest.values, base_ms - interest.as_of_ms


def _interest(columns: tuple[bytes, bytes, int], base_ms: int) -> Interest:
    head, values, ago = columns
    unit, weight, n_steps = _SUM.unpack_from(head)
    steps = head[_SUM.size :]
    if len(steps) != n_steps:
        raise ValueError(f"expected {n_steps} steps, got {len(steps)}")
    return Interest(values, steps, unit, weight, base_ms - ago)


def _pending_columns(pending: Trigger | None) -> tuple[int, int, int, str, int] | None:
    if pending is None:
        return None
    source = SOURCES.index(pending.topic)
    return source, pending.partition, pending.offset, pending.event_id, pending.event_time_ms


def _pending(columns: tuple[int, int, int, str, int] | None) -> Trigger | None:
    if columns is None:
        return None
    source, partition, offset, event_id, event_time_ms = columns
    return Trigger(
        topic=SOURCES[source],
        partition=partition,
        offset=offset,
        event_id=event_id,
        event_time_ms=event_time_ms,
    )
