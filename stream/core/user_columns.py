"""Columns of a user's row: acts, sums, activity and what is due, told by differences from a base.

Ids without repeats and in six bits a character where their letters allow it; vectors come as they
are in the state. Shared by the versions of rows from 2 on.
"""

from __future__ import annotations

import struct
from itertools import accumulate, count
from math import copysign
from operator import add, sub
from typing import Any, Final, get_args

from msgspec import Struct

from models.activity import WINDOW_DAYS, Activity
from stream.core.packed_ids import pack_ids, unpack_ids
from stream.core.user_state import LATEST_MS, SOURCES, Act, Interest, TextAct, UserState
from stream.messages import Band, Trigger

SumColumns = tuple[bytes, bytes, int]
TextColumns = tuple[int, str, bytes, float, bool]
PendingColumns = tuple[int, int, int, str, int]

#: By their numbers in rows.
BANDS: Final[tuple[Band | None, ...]] = (None, *get_args(Band))
_SUM = struct.Struct("<ffH")
_ACTIVITY = struct.Struct("<4q5Q4d")


class ActColumns(Struct, frozen=True, array_like=True, gc=False):
    """The acts, oldest first, by columns."""

    item_ids: bytes
    places: bytes  # in item_ids, one byte an act or two; empty when each has its own item
    kinds: bytes  # the same: number in kind_names * 2, plus 1 when folded
    kind_names: list[str]
    kind_weights: bytes
    times: list[int]  # the first as so much before the base, others after the one before


def checked(state: UserState) -> UserState:
    """Return the state; raise ValueError if one of its times could not be written again."""
    times = [state.seen_region_ms, state.recommended_ms, *[t.event_time_ms for t in state.texts]]
    if state.long:
        times.append(state.long.as_of_ms)
    if state.acts:
        times += state.acts[0].event_time_ms, state.acts[-1].event_time_ms
    if min(times) < 0 or max(times) > LATEST_MS:
        raise ValueError("a time that no clock has")
    return state


def act_columns(acts: tuple[Act, ...], base_ms: int) -> ActColumns:
    item_ids = [act.item_id for act in acts]
    distinct = dict.fromkeys(item_ids)
    places = b""
    if len(distinct) < len(item_ids):
        place_of = dict(zip(distinct, count()))
        places = _small([place_of[item_id] for item_id in item_ids])
        item_ids = list(distinct)
    kinds, names, weights = _kind_columns(acts)
    times = [act.event_time_ms for act in acts]
    return ActColumns(
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


def acts_of(columns: ActColumns, base_ms: int) -> tuple[Act, ...]:
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


def text_columns(text: TextAct, base_ms: int) -> TextColumns:
    return base_ms - text.event_time_ms, text.text, text.vector, text.weight, text.folded


def texts_of(columns: tuple[TextColumns, ...], base_ms: int) -> tuple[TextAct, ...]:
    return tuple(
        [TextAct(base_ms - ago, t, v, weight, folded) for ago, t, v, weight, folded in columns]
    )


def _small(numbers: list[int]) -> bytes:
    """Return one byte a number, or two where one is above 255."""
    if max(numbers, default=0) < 256:
        return bytes(numbers)
    return struct.pack(f"<{len(numbers)}H", *numbers)


def _numbers(raw: bytes, n: int) -> bytes | tuple[int, ...]:
    return raw if len(raw) == n else struct.unpack(f"<{n}H", raw)


def ago_of(at_ms: int, base_ms: int) -> int:
    """Return 0 for 0, never; else how long before the base, pushed up or down past 0."""
    if not at_ms:
        return 0
    return base_ms - at_ms + 1 if at_ms <= base_ms else base_ms - at_ms


def time_of(ago: int, base_ms: int) -> int:
    if not ago:
        return 0
    return base_ms - ago + 1 if ago > 0 else base_ms - ago


def activity_columns(activity: Activity, base_ms: int) -> tuple[int | float | bytes, ...]:
    first, last, first_bought, last_bought, *counts, spend, short, long, satisfaction, days = (
        activity
    )
    return (
        ago_of(first, base_ms),
        ago_of(last, base_ms),
        ago_of(first_bought, base_ms),
        ago_of(last_bought, base_ms),
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


def activity_of(columns: tuple[Any, ...], base_ms: int) -> Activity:
    first, last, first_bought, last_bought, *numbers, days = columns
    if len(days) > WINDOW_DAYS // 8:
        raise ValueError(f"expected {WINDOW_DAYS // 8} bytes of days at most")
    # Packed, so that no number passes that is none or out of bounds.
    packed = _ACTIVITY.pack(
        time_of(first, base_ms),
        time_of(last, base_ms),
        time_of(first_bought, base_ms),
        time_of(last_bought, base_ms),
        *numbers,
    )
    return Activity._make((*_ACTIVITY.unpack(packed), int.from_bytes(days, "little")))


def sum_columns(interest: Interest, base_ms: int) -> SumColumns:
    head = _SUM.pack(interest.unit, interest.weight, len(interest.steps))
    return head + interest.steps, interest.values, base_ms - interest.as_of_ms


def interest_of(columns: SumColumns, base_ms: int) -> Interest:
    head, values, ago = columns
    unit, weight, n_steps = _SUM.unpack_from(head)
    steps = head[_SUM.size :]
    if len(steps) != n_steps:
        raise ValueError(f"expected {n_steps} steps, got {len(steps)}")
    return Interest(values, steps, unit, weight, base_ms - ago)


def pending_columns(pending: Trigger | None) -> PendingColumns | None:
    if pending is None:
        return None
    source = SOURCES.index(pending.topic)
    return source, pending.partition, pending.offset, pending.event_id, pending.event_time_ms


def pending_of(columns: PendingColumns | None) -> Trigger | None:
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
