"""profiles: what is kept of users -> what the recommender may know of them now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.hashed_ids import HashedIds
from models.packed_vector import from_four_bits
from models.profile import HistoryItem, HistoryText, Profile
from stream.core.user_state import (
    NO_PERIOD,
    PERIOD_MS,
    Act,
    Rules,
    TextAct,
    UserState,
    Vector,
)

#: The kinds of acts after which an item may not come back.
_EXCLUDING = frozenset({"purchase", "dislike"})

#: Item ids -> their vectors, (n, dim), zero where unknown; and which are known, (n,).
LookUp = Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.bool_]]]


def profiles_of(
    states: Sequence[UserState], look_up: LookUp, now_ms: int, rules: Rules
) -> list[Profile]:
    """Return what the recommender may know of users now, in order.

    An act on an item whose vector is not known says nothing to the interests.
    """
    if not states:
        return []
    told = _Told.of(states, look_up)
    long = told.decayed(rules.long_half_life_ms, waiting_only=True)
    short = told.decayed(rules.short_half_life_ms, waiting_only=False)
    return [
        _profile(state, texts, _with_sum(state, of_long, rules), of_short, now_ms, rules)
        for state, texts, of_long, of_short in zip(states, told.texts, long, short, strict=True)
    ]


def profile_of(
    state: UserState, vectors: Mapping[str, Vector], now_ms: int, rules: Rules
) -> Profile:
    """Return what the recommender may know of one user now; ``vectors`` holds the known items."""
    [profile] = profiles_of([state], lambda item_ids: _among(vectors, item_ids), now_ms, rules)
    return profile


def long_interest(
    state: UserState, vectors: Mapping[str, Vector], rules: Rules
) -> tuple[Vector | None, float]:
    """Return the lasting interest and its weight, as of the newest that is in it."""
    profile = profile_of(state, vectors, 0, rules)
    return profile.long_interest, profile.long_weight


def short_interest(
    state: UserState, vectors: Mapping[str, Vector], rules: Rules
) -> tuple[Vector | None, float]:
    """Return the interest of the moment and its weight: it follows from what is kept alone."""
    profile = profile_of(state, vectors, 0, rules)
    return profile.short_interest, profile.short_weight


def _among(
    vectors: Mapping[str, Vector], item_ids: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    known = np.array([item_id in vectors for item_id in item_ids], bool)
    of_known = [vectors[item_id] for item_id in item_ids if item_id in vectors]
    found = np.zeros((len(item_ids), len(of_known[0]) if of_known else 0), np.float32)
    found[known] = of_known or 0
    return found, known


@dataclass(frozen=True, slots=True)
class _Sum:
    """Decayed sums of vectors, None where there is nothing, and of their weights, as of a time."""

    vector: Vector | None
    weight: float
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class _Told:
    """The acts and searches of some users in columns, one user's behind another's, searches last.

    ``vectors`` (n, dim), where ``says`` (n,); ``texts`` has the searches' vectors by user.
    """

    starts: Sequence[int]
    owners: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    weights: NDArray[np.float64]
    waits: NDArray[np.bool_]
    says: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    texts: Sequence[Sequence[Vector]]

    @classmethod
    def of(cls, states: Sequence[UserState], look_up: LookUp) -> _Told:
        texts = [[text.array() for text in state.texts] for state in states]
        of_acts, known = look_up([act.item_id for state in states for act in state.acts])
        every: list[Act | TextAct] = []
        for state in states:
            every += state.acts
            every += state.texts
        lengths = [len(state.acts) + len(state.texts) for state in states]
        says, vectors = known, of_acts
        if any(texts):
            is_text = np.concatenate(
                [np.repeat([False, True], [len(s.acts), len(s.texts)]) for s in states]
            )
            of_texts = np.stack([vector for of_user in texts for vector in of_user])
            vectors = np.zeros((len(every), of_texts.shape[1]), np.float32)
            vectors[is_text] = of_texts
            if of_acts.size:
                vectors[~is_text] = of_acts
            says = is_text.copy()
            says[~is_text] = known
        return cls(
            starts=np.cumsum([0, *lengths]).tolist(),
            owners=np.repeat(np.arange(len(states)), lengths),
            times_ms=np.array([event.event_time_ms for event in every], np.int64),
            weights=np.array([event.weight for event in every], np.float64),
            waits=np.array([not event.folded for event in every], np.bool_),
            says=says,
            vectors=vectors,
            texts=texts,
        )

    def decayed(self, half_life_ms: float, *, waiting_only: bool) -> list[_Sum]:
        """Return by user the sum of what says something, as of the newest of it."""
        counts = self.says & self.waits if waiting_only else self.says
        as_of_ms = np.zeros(len(self.texts), np.int64)
        np.maximum.at(as_of_ms, self.owners[counts], self.times_ms[counts])
        ages_ms = np.maximum(as_of_ms[self.owners] - self.times_ms, 0)
        weights = np.where(counts, self.weights * 0.5 ** (ages_ms / half_life_ms), 0.0)
        totals = np.bincount(self.owners, weights, len(self.texts)).tolist()
        is_any = (np.bincount(self.owners, counts, len(self.texts)) > 0).tolist()
        factors = weights.astype(np.float32)
        return [
            _Sum(factors[start:end] @ self.vectors[start:end] if found else None, total, at_ms)
            for found, total, at_ms, (start, end) in zip(
                is_any, totals, as_of_ms.tolist(), pairwise(self.starts), strict=True
            )
        ]


def _with_sum(state: UserState, waiting: _Sum, rules: Rules) -> _Sum:
    """Return the lasting interest: what waits, and the sum of what is no longer kept."""
    long = state.long
    if long is None:
        return waiting
    as_of_ms = max(waiting.as_of_ms, long.as_of_ms)
    old = 0.5 ** ((as_of_ms - long.as_of_ms) / rules.long_half_life_ms)
    new = 0.5 ** ((as_of_ms - waiting.as_of_ms) / rules.long_half_life_ms)
    vector, weight = long.array() * np.float32(old), long.weight * old
    if waiting.vector is not None:
        vector, weight = vector + waiting.vector * np.float32(new), weight + waiting.weight * new
    return _Sum(vector, weight, as_of_ms)


def _profile(
    state: UserState, texts: Sequence[Vector], long: _Sum, short: _Sum, now_ms: int, rules: Rules
) -> Profile:
    return Profile(
        items=_history(state),
        texts=_texts(state, texts),
        long_interest=long.vector,
        long_weight=long.weight,
        short_interest=short.vector,
        short_weight=short.weight,
        exclude=excluded(state, now_ms, rules),
        exclude_hashed=excluded_hashed(state, now_ms, rules),
        region=state.stated.region or state.seen_region,
    )


def _history(state: UserState) -> tuple[HistoryItem, ...]:
    """One entry per item, at its latest act: the strongest act for it and the strongest against."""
    latest: dict[str, HistoryItem] = {}
    spans: dict[str, tuple[float, float]] = {}  # of those with several acts
    for act in state.acts:  # oldest first
        item_id, weight = act.item_id, act.weight
        before = latest.pop(item_id, None)
        if before is not None:
            best, worst = spans.get(item_id) or _span(before.weight)
            spans[item_id] = best, worst = max(best, weight), min(worst, weight)
            weight = best + worst
        latest[item_id] = HistoryItem(item_id, weight, act.event_time_ms)
    return tuple(latest.values())


def _span(weight: float) -> tuple[float, float]:
    return max(weight, 0.0), min(weight, 0.0)


def _texts(state: UserState, vectors: Sequence[Vector]) -> tuple[HistoryText, ...]:
    texts = [
        HistoryText("search", text.text, vector, text.weight, text.event_time_ms)
        for text, vector in zip(state.texts, vectors, strict=True)
    ]
    stated = state.stated
    if stated.interests_vector:
        vector = from_four_bits(stated.interests_vector)
        interest = HistoryText("interest", stated.interests, vector, 1.0, stated.updated_ms)
        texts.insert(0, interest)
    return tuple(texts)


def excluded(state: UserState, now_ms: int, rules: Rules) -> frozenset[str]:
    """Return the items that may not be recommended: bought of late, or disliked since liked."""
    if not any(act.kind in _EXCLUDING for act in state.acts):
        return frozenset()
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
