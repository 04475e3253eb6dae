"""profiles: what is kept of users -> what the recommender may know of them now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.hashed_ids import HashedIds
from models.packed_vector import from_four_bits
from models.profile import HistoryItem, HistoryText, Profile
from stream.core.kept import Kept, acts_of, native_users
from stream.core.user_state import (
    NO_PERIOD,
    PERIOD_MS,
    Faded,
    Interest,
    Rules,
    Stated,
    TextAct,
    UserState,
    Vector,
)

#: The kinds of acts after which an item may not come back.
_EXCLUDING = frozenset({"purchase", "dislike"})

#: Item ids -> their vectors, (n, dim), zero where unknown; and which are known, (n,).
LookUp = Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.bool_]]]
#: Shares of the acts of some users in two sums, (n, 2) -> the sums by user, (b, 2, dim).
SumUp = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class HeldVectors(Protocol):
    """Items' vectors where they are held (models.catalogue.Catalogue)."""

    def raw_vectors(
        self, item_ids: Sequence[str], /
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]: ...
    def raw_rows(self, item_ids: Sequence[str], /) -> NDArray[np.int64]: ...
    def raw_sums(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], shares: NDArray[np.float32], /
    ) -> NDArray[np.float32]: ...


class _User(Protocol):
    """What a profile takes of a user beside the acts: of a UserState, or as native code has it."""

    @property
    def texts(self) -> tuple[TextAct, ...]: ...
    @property
    def stated(self) -> Stated: ...
    @property
    def long(self) -> Interest | None: ...
    @property
    def faded(self) -> tuple[Faded, ...]: ...
    @property
    def seen_region(self) -> str | None: ...


def profiles_of_kept(
    kept: Sequence[Kept], held: HeldVectors, now_ms: int, rules: Rules
) -> list[Profile]:
    """Return what ``profiles_of`` does; without an object per act where native code keeps all."""
    users = native_users(kept)
    if not users:
        return profiles_of([user.state() for user in kept], held.raw_vectors, now_ms, rules)
    acts = _Acts(*acts_of(users, now_ms - rules.purchase_exclusion_ms))
    rows = held.raw_rows(acts.item_ids)
    known = rows >= 0
    liked = [_liked(user.state()) if user.faded else {} for user in users]
    sum_up = partial(held.raw_sums, rows, acts.starts)
    return _profiles(users, acts, known, sum_up, liked, now_ms, rules)


def profiles_of(
    states: Sequence[UserState], look_up: LookUp, now_ms: int, rules: Rules
) -> list[Profile]:
    """Return what the recommender may know of users now, in order.

    An act on an item whose vector is not known says nothing to the interests.
    """
    if not states:
        return []
    acts = _Acts.of(states, now_ms, rules)
    vectors, known = look_up(acts.item_ids)
    liked = [_liked(state) if state.faded else {} for state in states]
    sum_up = partial(_sums, vectors, acts.starts.tolist())
    return _profiles(states, acts, known, sum_up, liked, now_ms, rules)


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


def _sums(
    vectors: NDArray[np.float32], starts: Sequence[int], shares: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return by user the sums of vectors (n, dim) times their shares (n, 2): (b, 2, dim)."""
    return np.stack([shares[a:b].T @ vectors[a:b] for a, b in pairwise(starts)])


@dataclass(frozen=True, slots=True)
class _Acts:
    """The acts of b users in columns (n,), one user's behind another's, who begins at one of
    ``starts`` (b + 1,); by user what they come to, and what may not be shown for them.

    ``waits`` is for acts that are not in the sum of the lasting interest yet.
    """

    item_ids: list[str]
    starts: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    weights: NDArray[np.float64]
    waits: NDArray[np.bool_]
    histories: Sequence[tuple[HistoryItem, ...]]
    excluded: Sequence[frozenset[str]]

    @classmethod
    def of(cls, states: Sequence[UserState], now_ms: int, rules: Rules) -> _Acts:
        every = [act for state in states for act in state.acts]
        return cls(
            item_ids=[act.item_id for act in every],
            starts=np.cumsum([0, *[len(state.acts) for state in states]]),
            times_ms=np.array([act.event_time_ms for act in every], np.int64),
            weights=np.array([act.weight for act in every], np.float64),
            waits=np.array([not act.folded for act in every], np.bool_),
            histories=[_history(state) for state in states],
            excluded=[_excluded(state, now_ms, rules) for state in states],
        )


@dataclass(frozen=True, slots=True)
class _Sum:
    """Decayed sums of vectors, None where there is nothing, and of their weights, as of a time."""

    vector: Vector | None
    weight: float
    as_of_ms: int

    @classmethod
    def of(cls, vector: Vector, is_any: bool, weight: float, as_of_ms: int) -> _Sum:
        return cls(vector if is_any else None, weight, as_of_ms)


@dataclass(frozen=True, slots=True)
class _Told:
    """What counts for the interests of b users, (n,): their acts, and behind all of these their
    searches."""

    n_users: int
    owners: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    weights: NDArray[np.float64]

    def shares(
        self, counts: NDArray[np.bool_], half_life_ms: float
    ) -> tuple[NDArray[np.float32], list[tuple[bool, float, int]]]:
        """Return the share of each in the sum of what ``counts`` (n,), as of the newest of it, and
        by user: is there any, the sum of the weights, as of when."""
        as_of_ms = np.zeros(self.n_users, np.int64)
        np.maximum.at(as_of_ms, self.owners[counts], self.times_ms[counts])
        ages_ms = np.maximum(as_of_ms[self.owners] - self.times_ms, 0)
        weights = np.where(counts, self.weights * 0.5 ** (ages_ms / half_life_ms), 0.0)
        totals = np.bincount(self.owners, weights, self.n_users).tolist()
        is_any = (np.bincount(self.owners, counts, self.n_users) > 0).tolist()
        of_users = list(zip(is_any, totals, as_of_ms.tolist(), strict=True))
        return weights.astype(np.float32), of_users


def _profiles(
    users: Sequence[_User],
    acts: _Acts,
    known: NDArray[np.bool_],
    sum_up: SumUp,
    liked: Sequence[Mapping[str, int]],
    now_ms: int,
    rules: Rules,
) -> list[Profile]:
    owners = np.repeat(np.arange(len(users)), np.diff(acts.starts))
    times_ms, weights, waits, says = acts.times_ms, acts.weights, acts.waits, known
    searches = [(number, text) for number, user in enumerate(users) for text in user.texts]
    if searches:
        texts = [text for _, text in searches]
        owners = np.concatenate([owners, [number for number, _ in searches]])
        times_ms = np.concatenate([times_ms, [text.event_time_ms for text in texts]])
        weights = np.concatenate([weights, [text.weight for text in texts]])
        waits = np.concatenate([waits, [not text.folded for text in texts]])
        says = np.concatenate([says, np.ones(len(texts), np.bool_)])
    told = _Told(len(users), owners, times_ms, weights)
    long_shares, long = told.shares(says & waits, rules.long_half_life_ms)
    short_shares, short = told.shares(says, rules.short_half_life_ms)
    shares = np.stack([long_shares, short_shares], axis=1)
    sums = sum_up(shares[: len(known)])
    vectors: list[list[Vector]] = [[] for _ in users]
    for (number, text), of_text in zip(searches, shares[len(known) :], strict=True):
        vectors[number].append(vector := text.array())
        if sums.shape[2] != len(vector):  # no item's vector is known
            sums = np.zeros((len(users), 2, len(vector)), np.float32)
        sums[number] += np.outer(of_text, vector)
    return [
        _profile(
            user,
            _texts(user, vectors[number]),
            _with_sum(user.long, _Sum.of(sums[number, 0], *long[number]), rules),
            _Sum.of(sums[number, 1], *short[number]),
            acts.histories[number],
            acts.excluded[number],
            _excluded_hashed(user.faded, liked[number], now_ms, rules),
        )
        for number, user in enumerate(users)
    ]


def _with_sum(long: Interest | None, waiting: _Sum, rules: Rules) -> _Sum:
    """Return the lasting interest: what waits, and the sum of what is no longer kept."""
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
    user: _User,
    texts: tuple[HistoryText, ...],
    long: _Sum,
    short: _Sum,
    history: tuple[HistoryItem, ...],
    excluded: frozenset[str],
    excluded_hashed: FadedExclusions | None,
) -> Profile:
    return Profile(
        items=history,
        texts=texts,
        long_interest=long.vector,
        long_weight=long.weight,
        short_interest=short.vector,
        short_weight=short.weight,
        exclude=excluded,
        exclude_hashed=excluded_hashed,
        region=user.stated.region or user.seen_region,
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


def _texts(user: _User, vectors: Sequence[Vector]) -> tuple[HistoryText, ...]:
    texts = [
        HistoryText("search", text.text, vector, text.weight, text.event_time_ms)
        for text, vector in zip(user.texts, vectors, strict=True)
    ]
    stated = user.stated
    if stated.interests_vector:
        vector = from_four_bits(stated.interests_vector)
        interest = HistoryText("interest", stated.interests, vector, 1.0, stated.updated_ms)
        texts.insert(0, interest)
    return tuple(texts)


def _excluded(state: UserState, now_ms: int, rules: Rules) -> frozenset[str]:
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


def _excluded_hashed(
    faded: Sequence[Faded], liked: Iterable[str], now_ms: int, rules: Rules
) -> FadedExclusions | None:
    """Return what ``_excluded`` no longer names, None when there is nothing.

    Of a purchase only the month is known, so it counts until its window is over for sure.
    """
    oldest = (now_ms - rules.purchase_exclusion_ms) // PERIOD_MS
    bought = tuple(f.ids() for f in faded if f.period >= max(oldest, 0))
    disliked = tuple(f.ids() for f in faded if f.period == NO_PERIOD)
    if not bought and not disliked:
        return None
    return FadedExclusions(bought, disliked, frozenset(liked))


def _liked(state: UserState) -> dict[str, int]:
    return {
        act.item_id: act.event_time_ms
        for act in state.acts
        if act.kind in ("favorite", "add_to_cart", "purchase")
    }
