"""fold: a user's state and new events -> the state after them, and what they lead to.

The result does not depend on the order of arrival, as long as the bounded memories (recent acts,
searches, event ids) are not overrun; nor on repeats: an event at an offset that the state already
reflects, or with an event id that it remembers, changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Literal, TypeVar

import msgspec
import numpy as np

from models.activity import Activity, fold_activity
from models.activity import from_bytes as activity_of
from models.activity import to_bytes as activity_bytes
from stream.core.events import Interaction, Review, Search, User
from stream.core.user_state import (
    SOURCES,
    Act,
    Interest,
    Rules,
    Stated,
    TextAct,
    UserState,
    Vector,
)
from stream.messages import Trigger, to_fp16

Outcome = Literal["folded", "repeat", "duplicate", "unknown_item", "not_personalized"]

#: Acts that make a user one of an item's takers, for co-occurrence and popularity.
TAKING = frozenset({"view", "click", "add_to_cart", "favorite", "purchase", "review", "search"})
#: A review's text says less about taste than the choice of the item does.
REVIEW_TEXT_SHARE = 0.5
#: A review without a rating: mild praise, since most reviewers are content.
UNRATED = 0.25
ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Sourced:
    """An event with its place: the exact source, not the topic it travelled through.

    ``vector``, shape (dim,), belongs to the text of a search, a review or a user's interests.
    """

    source: str
    partition: int
    offset: int
    timestamp_ms: int
    event: Interaction | Search | Review | User
    vector: Vector | None = None

    def event_time_ms(self) -> int:
        """Return when it happened, never later than the broker's own time allows for."""
        stated = self.event.updated_ms if isinstance(self.event, User) else self.event.event_time_ms
        return min(stated, self.timestamp_ms)


@dataclass(frozen=True, slots=True)
class Touch:
    """A user took an item: beside which recent ones, and for the first time or again."""

    item_id: str
    others: tuple[str, ...]
    weight: float
    first: bool
    event_time_ms: int
    region: str | None


@dataclass(slots=True)
class Folded:
    """The state after the events; ``outcomes`` has one entry per event, in order."""

    state: UserState
    outcomes: list[Outcome]
    touches: list[Touch]
    #: The place of the last event that may cause a recommendation, if any did.
    trigger: Trigger | None
    #: How many event times lay in the future and were cut.
    n_future: int


def fold(
    before: UserState,
    events: Sequence[Sourced],
    vectors: Mapping[str, Vector],
    rules: Rules,
) -> Folded:
    """Fold events into a state; ``vectors`` holds the known items among those touched.

    An act on an item without a vector is kept, and folded once ``vectors`` has it.
    """
    folding = _Folding(before, vectors, rules)
    folding.fold_waiting()
    outcomes = [folding.fold(event) for event in events]
    return Folded(folding.freeze(), outcomes, folding.touches, folding.trigger, folding.n_future)


def items_of(state: UserState, events: Iterable[Sourced]) -> set[str]:
    """Return the items whose vectors ``fold`` may need."""
    waiting = {act.item_id for act in state.acts if not act.folded}
    for sourced in events:
        event = sourced.event
        if isinstance(event, Interaction | Review):
            waiting.add(event.item_id)
        elif isinstance(event, Search):
            waiting.update(event.clicked_item_ids)
    return waiting


@dataclass(slots=True)
class _Sum:
    """A decayed sum while it is being added to."""

    half_life_ms: float
    vector: Vector | None = None
    weight: float = 0.0
    as_of_ms: int = 0

    @classmethod
    def of(cls, interest: Interest | None, half_life_ms: float) -> _Sum:
        if interest is None:
            return cls(half_life_ms)
        return cls(half_life_ms, interest.array().copy(), interest.weight, interest.as_of_ms)

    def add(self, vector: Vector, weight: float, event_time_ms: int) -> None:
        if self.vector is None:
            self.vector = np.zeros(len(vector), np.float32)
        if event_time_ms > self.as_of_ms:
            old = 0.5 ** ((event_time_ms - self.as_of_ms) / self.half_life_ms)
            self.vector *= np.float32(old)
            self.weight *= old
            self.as_of_ms = event_time_ms
        else:
            weight *= 0.5 ** ((self.as_of_ms - event_time_ms) / self.half_life_ms)
        self.vector += np.float32(weight) * vector
        self.weight += weight

    def freeze(self) -> Interest | None:
        if self.vector is None:
            return None
        return Interest(self.vector.tobytes(), self.weight, self.as_of_ms)


@dataclass(slots=True)
class _Folding:
    before: UserState
    vectors: Mapping[str, Vector]
    rules: Rules
    touches: list[Touch] = field(default_factory=list)
    trigger: Trigger | None = None
    n_future: int = 0
    offsets: list[int] = field(init=False)
    long: _Sum = field(init=False)
    short: _Sum = field(init=False)
    acts: set[Act] = field(init=False)
    taken: dict[str, int] = field(init=False)
    texts: set[TextAct] = field(init=False)
    bought: dict[str, int] = field(init=False)
    disliked: dict[str, int] = field(init=False)
    activity: Activity = field(init=False)
    event_ids: list[bytes] = field(init=False)
    stated: Stated = field(init=False)
    region: tuple[int, str | None] = field(init=False)

    def __post_init__(self) -> None:
        before, rules = self.before, self.rules
        self.offsets = list(before.offsets) + [-1] * (len(SOURCES) - len(before.offsets))
        self.long = _Sum.of(before.long, rules.long_half_life_ms)
        self.short = _Sum.of(before.short, rules.short_half_life_ms)
        self.acts = set(before.acts)
        self.taken = {
            act.item_id: act.event_time_ms
            for act in before.acts
            if act.kind in TAKING and act.weight > 0
        }
        self.texts = set(before.texts)
        self.bought = dict(before.bought)
        self.disliked = dict(before.disliked)
        self.activity = activity_of(before.activity) if before.activity else Activity()
        ids = before.event_ids
        self.event_ids = [ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES)]
        self.stated = before.stated
        self.region = (before.seen_region_ms, before.seen_region)

    def fold_waiting(self) -> None:
        """Fold the acts whose items have got a vector since."""
        for act in [act for act in self.acts if not act.folded and act.item_id in self.vectors]:
            self.acts.remove(act)
            self.acts.add(msgspec.structs.replace(act, folded=True))
            self._interest(self.vectors[act.item_id], act.weight, act.event_time_ms)

    def fold(self, sourced: Sourced) -> Outcome:
        source = SOURCES.index(sourced.source)
        if sourced.offset <= self.offsets[source]:
            return "repeat"
        self.offsets[source] = sourced.offset
        event = sourced.event
        if isinstance(event, User):
            return self._user(event, sourced)
        if not self.stated.personalize:
            return "not_personalized"
        if self._known(sourced.source, event.event_id):
            return "duplicate"
        at_ms = self._event_time(event.event_time_ms, sourced.timestamp_ms)
        if isinstance(event, Interaction):
            outcome = self._interaction(event, at_ms)
        elif isinstance(event, Search):
            outcome = self._search(event, sourced.vector, at_ms)
        else:
            outcome = self._review(event, sourced.vector, at_ms)
        if not (isinstance(event, Interaction) and event.type == "impression"):
            self._triggered(sourced, event.event_id, at_ms)
        return outcome

    def _known(self, source: str, event_id: str) -> bool:
        digest = hashlib.blake2b(f"{source}\x1f{event_id}".encode(), digest_size=ID_BYTES).digest()
        if digest in self.event_ids:
            return True
        self.event_ids.append(digest)
        return False

    def _event_time(self, event_time_ms: int, timestamp_ms: int) -> int:
        # The broker's time is part of the log, so a replay cuts the same event the same way.
        if event_time_ms <= timestamp_ms + self.rules.max_future_ms:
            return event_time_ms
        self.n_future += 1
        return timestamp_ms

    def _cut(self, text: str) -> str:
        # A row and the messages made from it must stay below Kafka's limit.
        return text[: self.rules.text_chars_kept]

    def _interest(self, vector: Vector, weight: float, at_ms: int) -> None:
        self.long.add(vector, weight, at_ms)
        self.short.add(vector, weight, at_ms)

    def _interaction(self, event: Interaction, at_ms: int) -> Outcome:
        weight = self.rules.weights[event.type]
        if event.context and event.context.region and at_ms >= self.region[0]:
            self.region = (at_ms, self._cut(event.context.region))
        self.activity = fold_activity(
            self.activity, event.type, at_ms, event.price, event.quantity, None
        )
        if event.type == "purchase":
            self.bought[event.item_id] = max(at_ms, self.bought.get(event.item_id, 0))
        elif event.type == "dislike":
            self.disliked[event.item_id] = max(at_ms, self.disliked.get(event.item_id, 0))
        if event.type == "impression":
            return self._impression(event.item_id, weight, at_ms)
        return self._act(event.item_id, event.type, weight, at_ms)

    def _impression(self, item_id: str, weight: float, at_ms: int) -> Outcome:
        # Too many to keep each, and too weak to wait for a vector.
        if item_id not in self.vectors:
            return "unknown_item"
        self._interest(self.vectors[item_id], weight, at_ms)
        return "folded"

    def _act(self, item_id: str, kind: str, weight: float, at_ms: int) -> Outcome:
        known = item_id in self.vectors
        if known:
            self._interest(self.vectors[item_id], weight, at_ms)
        if kind in TAKING and weight > 0:
            self._touch(item_id, weight, at_ms)
        self.acts.add(Act(at_ms, item_id, kind, weight, known))
        return "folded" if known else "unknown_item"

    def _touch(self, item_id: str, weight: float, at_ms: int) -> None:
        first = item_id not in self.taken
        others = self._recently_taken() if first else ()
        region = self.stated.region or self.region[1]
        self.touches.append(Touch(item_id, others, weight, first, at_ms, region))
        self.taken[item_id] = max(at_ms, self.taken.get(item_id, 0))

    def _recently_taken(self) -> tuple[str, ...]:
        n = self.rules.cooccurrence_items
        return tuple(nlargest(n, self.taken, key=lambda item: (self.taken[item], item)))

    def _search(self, event: Search, vector: Vector | None, at_ms: int) -> Outcome:
        weight = self.rules.weights["search"]
        self.activity = fold_activity(self.activity, "search", at_ms, None, None, None)
        if vector is not None:
            self._interest(vector, weight, at_ms)
            self.texts.add(TextAct(at_ms, self._cut(event.query), to_fp16(vector), weight))
        for item_id in event.clicked_item_ids:
            self._act(item_id, "click", self.rules.weights["click"], at_ms)
        return "folded"

    def _review(self, event: Review, vector: Vector | None, at_ms: int) -> Outcome:
        praise = UNRATED if event.rating is None else (event.rating - 3) / 2
        weight = self.rules.weights["review"] * praise
        self.activity = fold_activity(self.activity, "review", at_ms, None, None, event.rating)
        if vector is not None:
            self._interest(vector, weight * REVIEW_TEXT_SHARE, at_ms)
        return self._act(event.item_id, "review", weight, at_ms)

    def _user(self, event: User, sourced: Sourced) -> Outcome:
        """Take what is stated; the record and the vector of its interests come in any order."""
        before, interests = self.stated, self._cut("; ".join(event.interests))
        if event.updated_ms < before.updated_ms:
            return "folded"
        same = event.updated_ms == before.updated_ms and interests == before.interests
        has_vector = sourced.source == "interests" and sourced.vector is not None
        if event.updated_ms == before.updated_ms and has_vector and not same:
            # Two records of one millisecond: the vector must not speak for the other one.
            return "folded"
        vector = before.interests_vector if same else b""
        if sourced.source == "interests" and sourced.vector is not None:
            vector = to_fp16(sourced.vector)
        self.stated = Stated(
            updated_ms=event.updated_ms,
            personalize=event.personalize,
            region=event.region and self._cut(event.region),
            locale=event.locale and self._cut(event.locale),
            interests=interests,
            interests_vector=vector,
        )
        if not event.personalize:
            self._forget_profile()
        elif has_vector:
            self._triggered(sourced, f"users:{sourced.offset}", event.updated_ms)
        return "folded"

    def _forget_profile(self) -> None:
        """Keep nothing but the wish not to be profiled, and what recognises repeats."""
        offsets, ids, stated = self.offsets, self.event_ids, self.stated
        self.before = UserState(stated=stated)
        self.__post_init__()
        self.offsets, self.event_ids = offsets, ids
        self.touches, self.trigger = [], None

    def _triggered(self, sourced: Sourced, event_id: str, at_ms: int) -> None:
        topic = "users" if sourced.source == "interests" else sourced.source
        self.trigger = Trigger(
            topic=topic,
            partition=sourced.partition,
            offset=sourced.offset,
            event_id=event_id,
            event_time_ms=at_ms,
        )

    def _bought_of_late(self) -> dict[str, int]:
        """Drop what was bought longer before the last purchase than purchases are excluded for."""
        oldest_ms = max(self.bought.values(), default=0) - self.rules.purchase_exclusion_ms
        return {item: at_ms for item, at_ms in self.bought.items() if at_ms >= oldest_ms}

    def freeze(self) -> UserState:
        rules = self.rules
        kept_ids = self.event_ids[-rules.event_id_memory :] if rules.event_id_memory else []
        return UserState(
            offsets=tuple(self.offsets),
            long=self.long.freeze(),
            short=self.short.freeze(),
            acts=_newest(self.acts, rules.history_items),
            texts=_newest(self.texts, rules.history_texts),
            bought=_newest_items(self._bought_of_late(), rules.exclusions_kept),
            disliked=_newest_items(self.disliked, rules.exclusions_kept),
            activity=activity_bytes(self.activity),
            event_ids=b"".join(kept_ids),
            stated=self.stated,
            seen_region=self.region[1],
            seen_region_ms=self.region[0],
            pending=self.before.pending,
            recommended_ms=self.before.recommended_ms,
            band=self.before.band,
            assessed_window=self.before.assessed_window,
        )


_Timed = TypeVar("_Timed", Act, TextAct)


def _newest(values: set[_Timed], n: int) -> tuple[_Timed, ...]:
    """Return the ``n`` newest, oldest first; ties are broken by what they say, not by arrival."""
    return tuple(sorted(values)) if len(values) <= n else tuple(sorted(nlargest(n, values)))


def _newest_items(times_ms: Mapping[str, int], n: int) -> dict[str, int]:
    newest = sorted(times_ms.items(), key=lambda pair: (pair[1], pair[0]))[-n:]
    return dict(newest)
