"""UserState: what is known of one shopper. Its row in the table is stream/core/user_rows.py.

Acts and searches are kept one by one while they are recent, exactly; the interests follow from
them. Only what is no longer kept one by one lies in a sum that is rounded. So states reached by
the same events in any order are equal to the bit in all but that sum, and in it nearly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.activity import Activity
from models.hashed_ids import FINEST, HashedIds
from models.packed_vector import PackedSum, from_four_bits
from stream.messages import Band, Trigger
from stream.settings import Settings

Vector = NDArray[np.float32]

#: Where events come from. Each keeps the offset up to which the state reflects it; a user record
#: arrives twice, as it is and with the vector of its interests.
SOURCES = ("clickstream", "searches", "reviews", "users", "interests")

DAY_MS = 86_400_000
#: Purchases that left the history are remembered by the month they fell in.
PERIOD_MS = 30 * DAY_MS
#: The period of what has no end: dislikes.
NO_PERIOD = -1
#: No clock goes further; the sums and differences of such times fit in a row.
LATEST_MS = 2**53
#: The store puts the number of the commit before every row.
STAMP_BYTES = 8


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
    #: Of a row as it is stored, the stamp of its commit included.
    max_state_bytes: int
    cooccurrence_items: int = 20
    text_bytes_kept: int = 80

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        return cls(
            weights={kind: rounded(weight) for kind, weight in settings.weights.items()},
            long_half_life_ms=settings.long_half_life_h * 3_600_000,
            short_half_life_ms=settings.short_half_life_h * 3_600_000,
            history_items=settings.history_items,
            history_texts=settings.history_texts,
            event_id_memory=settings.event_id_memory,
            max_future_ms=round(settings.max_future_s * 1000),
            purchase_exclusion_ms=settings.purchase_exclusion_days * DAY_MS,
            max_state_bytes=settings.max_state_bytes,
            cooccurrence_items=settings.cooccurrence_items,
        )


def rounded(weight: float) -> float:
    """Return a weight as rows keep it, in float32: what is read back is what was written."""
    return float(np.float32(weight))


class Interest(Struct, frozen=True, array_like=True, gc=False):
    """A decayed sum of vectors (``values``, ``steps`` and ``unit`` as in PackedSum) and weights."""

    values: bytes
    steps: bytes
    unit: float
    weight: float
    as_of_ms: int

    def packed(self) -> PackedSum:
        return PackedSum(self.values, self.steps, self.unit)

    def array(self) -> Vector:
        return self.packed().array()


class Act(Struct, frozen=True, array_like=True, order=True, gc=False):
    """One act on an item; ``folded`` once its share of the interests is in the sum."""

    event_time_ms: int
    item_id: str
    kind: str
    weight: float
    folded: bool = False


class TextAct(Struct, frozen=True, array_like=True, order=True, gc=False):
    """One search: its beginning, and its vector in four bits a dimension."""

    event_time_ms: int
    text: str
    vector: bytes
    weight: float
    folded: bool = False

    def array(self) -> Vector:
        return from_four_bits(self.vector)


class Faded(Struct, frozen=True, array_like=True, order=True, gc=False):
    """Items bought in a period, or disliked, whose acts have left the history (see HashedIds)."""

    period: int
    bits: int = FINEST
    raw: bytes = b""

    def ids(self) -> HashedIds:
        return HashedIds(self.bits, self.raw)


class Stated(Struct, frozen=True, array_like=True, gc=False):
    """What the shop states about the user (topic ``users``); the vector in four bits."""

    updated_ms: int = 0
    personalize: bool = True
    region: str | None = None
    locale: str | None = None
    interests: str = ""
    interests_vector: bytes = b""


class UserState(Struct, frozen=True, gc=False):
    """Everything kept of one user.

    ``long`` is the part of the lasting interest that is not in ``acts`` and ``texts`` (those of
    them that are ``folded`` are in it); ``faded`` holds what may not be recommended though its
    act is gone; ``pending`` is the trigger of a recommendation that is due but not out;
    ``activity`` is None until something was folded.
    """

    offsets: tuple[int, ...] = (-1,) * len(SOURCES)
    long: Interest | None = None
    acts: tuple[Act, ...] = ()
    texts: tuple[TextAct, ...] = ()
    faded: tuple[Faded, ...] = ()
    activity: Activity | None = None
    event_ids: bytes = b""
    stated: Stated = Stated()
    seen_region: str | None = None
    seen_region_ms: int = 0
    pending: Trigger | None = None
    recommended_ms: int = 0
    band: Band | None = None

    def latest(self, kind: str) -> dict[str, int]:
        """Return the items of the acts of a kind, and when it was last done."""
        return {act.item_id: act.event_time_ms for act in self.acts if act.kind == kind}


def fade(faded: Iterable[Faded], gone: Iterable[tuple[int, str]]) -> tuple[Faded, ...]:
    """Return the sets of ``faded`` with the (period, item) of acts that left the history."""
    by_period: dict[int, list[str]] = {}
    for period, item_id in gone:
        by_period.setdefault(period, []).append(item_id)
    sets = {f.period: f for f in faded}
    for period, item_ids in by_period.items():
        ids = sets.get(period, Faded(period)).ids().plus(item_ids)
        sets[period] = Faded(period, ids.bits, ids.raw)
    return tuple(sorted(sets.values()))


def is_long_gone(state: UserState, now_ms: int, ttl_ms: int) -> bool:
    """True when there is something to forget, and nothing was done by or for the user so long.

    What the shop states may be newer or older: it is kept, and says nothing of the user's doing.
    """
    if not (state.activity or state.long or state.acts or state.texts or state.seen_region_ms):
        return False
    touched_ms = max(
        state.activity.last_ms if state.activity else 0,
        state.long.as_of_ms if state.long else 0,
        state.acts[-1].event_time_ms if state.acts else 0,
        state.texts[-1].event_time_ms if state.texts else 0,
        state.seen_region_ms,
        state.recommended_ms,
    )
    return state.pending is None and now_ms - touched_ms > ttl_ms
