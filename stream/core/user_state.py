"""UserState: what is known of one shopper. Its row in the table is stream/core/user_rows.py.

Acts and searches are kept one by one while they are recent, exactly; the interests follow from
them. Only what is no longer kept one by one lies in a sum that is rounded. So states reached by
the same events in any order are equal to the bit in all but that sum, and in it nearly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.activity import Activity
from models.hashed_ids import FINEST, HashedIds
from models.packed_vector import PackedSum, from_four_bits
from models.profile import HistoryItem, HistoryText, Profile
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


def waiting_items(state: UserState) -> set[str]:
    """Return the items whose vectors the interests follow from."""
    return {act.item_id for act in state.acts}


def profile_of(
    state: UserState, vectors: Mapping[str, Vector], now_ms: int, rules: Rules
) -> Profile:
    """Return what the recommender may know of the user now.

    ``vectors`` holds the known ones among ``waiting_items``; an act on an item that it does not
    hold says nothing to the interests.
    """
    told = _told(state, vectors)
    long, long_weight = _long_interest(state, told, rules)
    short, short_weight = _short_interest(told, rules)
    return Profile(
        items=_history(state),
        texts=_texts(state, told),
        long_interest=long,
        long_weight=long_weight,
        short_interest=short,
        short_weight=short_weight,
        exclude=excluded(state, now_ms, rules),
        exclude_hashed=excluded_hashed(state, now_ms, rules),
        region=state.stated.region or state.seen_region,
    )


def long_interest(
    state: UserState, vectors: Mapping[str, Vector], rules: Rules
) -> tuple[Vector | None, float]:
    """Return the lasting interest and its weight, as of the newest that is in it."""
    return _long_interest(state, _told(state, vectors), rules)


def short_interest(
    state: UserState, vectors: Mapping[str, Vector], rules: Rules
) -> tuple[Vector | None, float]:
    """Return the interest of the moment and its weight: it follows from what is kept alone."""
    return _short_interest(_told(state, vectors), rules)


class _Told(Struct, frozen=True, gc=False):
    """The acts and searches that say something, searches last, with their vectors, (n, dim)."""

    events: Sequence[Act | TextAct]
    vectors: NDArray[np.float32]
    n_texts: int

    def texts(self) -> Sequence[Vector]:
        return list(self.vectors[len(self.events) - self.n_texts :])

    def decayed(
        self, as_of_ms: int, half_life_ms: float, folded: bool
    ) -> tuple[Vector | None, float]:
        """Return the sum of the vectors, and of their weights; of those ``folded`` only if so."""
        weights = [
            0.0
            if event.folded and not folded
            else event.weight * 0.5 ** ((as_of_ms - event.event_time_ms) / half_life_ms)
            for event in self.events
        ]
        if not any(weights):
            return None, 0.0
        return np.asarray(np.asarray(weights, np.float32) @ self.vectors, np.float32), sum(weights)


def _told(state: UserState, vectors: Mapping[str, Vector]) -> _Told:
    acts = [act for act in state.acts if act.item_id in vectors]
    of_texts = [text.array() for text in state.texts]
    told = [*[vectors[act.item_id] for act in acts], *of_texts]
    return _Told([*acts, *state.texts], np.array(told, np.float32), len(of_texts))


def _long_interest(state: UserState, told: _Told, rules: Rules) -> tuple[Vector | None, float]:
    waiting = [event.event_time_ms for event in told.events if not event.folded]
    as_of_ms = max(waiting, default=0)
    if state.long is not None:
        as_of_ms = max(as_of_ms, state.long.as_of_ms)
    half_life_ms = rules.long_half_life_ms
    new, new_weight = told.decayed(as_of_ms, half_life_ms, folded=False)
    if state.long is None:
        return new, new_weight
    old = 0.5 ** ((as_of_ms - state.long.as_of_ms) / half_life_ms)
    vector, weight = state.long.array() * np.float32(old), state.long.weight * old
    return (vector if new is None else vector + new), weight + new_weight


def _short_interest(told: _Told, rules: Rules) -> tuple[Vector | None, float]:
    as_of_ms = max((event.event_time_ms for event in told.events), default=0)
    return told.decayed(as_of_ms, rules.short_half_life_ms, folded=True)


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


def _texts(state: UserState, told: _Told) -> tuple[HistoryText, ...]:
    texts = [
        HistoryText("search", text.text, vector, text.weight, text.event_time_ms)
        for text, vector in zip(state.texts, told.texts(), strict=True)
    ]
    stated = state.stated
    if stated.interests_vector:
        vector = from_four_bits(stated.interests_vector)
        interest = HistoryText("interest", stated.interests, vector, 1.0, stated.updated_ms)
        texts.insert(0, interest)
    return tuple(texts)


def excluded(state: UserState, now_ms: int, rules: Rules) -> frozenset[str]:
    """Return the items that may not be recommended: bought of late, or disliked since liked."""
    oldest_ms = now_ms - rules.purchase_exclusion_ms
    bought = {item for item, at_ms in state.latest("purchase").items() if at_ms > oldest_ms}
    liked_ms = _liked(state)
    disliked = {
        item for item, at_ms in state.latest("dislike").items() if liked_ms.get(item, -1) <= at_ms
    }
    return frozenset(bought | disliked)


@dataclass(frozen=True, slots=True)
class FadedExclusions:
    """The items that may not be recommended and whose acts are gone; some others are taken for
    such. ``liked`` are those that were liked since they were disliked."""

    bought: tuple[HashedIds, ...]
    disliked: tuple[HashedIds, ...]
    liked: frozenset[str]

    def __contains__(self, item_id: object) -> bool:
        if any(item_id in ids for ids in self.bought):
            return True
        return item_id not in self.liked and any(item_id in ids for ids in self.disliked)

    def may_hold(self, hashes: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return False for hashes, shape (n,), of ids that are not in here, shape (n,)."""
        found = np.zeros(len(hashes), bool)
        for ids in (*self.bought, *self.disliked):
            found |= ids.may_hold(hashes)
        return found


def excluded_hashed(state: UserState, now_ms: int, rules: Rules) -> FadedExclusions | None:
    """Return what ``excluded`` no longer names, None when there is nothing.

    Of a purchase only the month is known, so it counts until its window is over for sure.
    """
    oldest = (now_ms - rules.purchase_exclusion_ms) // PERIOD_MS
    bought = tuple(f.ids() for f in state.faded if f.period >= max(oldest, 0))
    disliked = tuple(f.ids() for f in state.faded if f.period == NO_PERIOD)
    if not bought and not disliked:
        return None
    return FadedExclusions(bought, disliked, frozenset(_liked(state)))


def _liked(state: UserState) -> dict[str, int]:
    return {
        act.item_id: act.event_time_ms
        for act in state.acts
        if act.kind in ("favorite", "add_to_cart", "purchase")
    }


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
