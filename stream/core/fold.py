"""fold: a user's state and new events -> the state after them, and what they lead to.

The result does not depend on the order of arrival, as long as the bounded memories (recent acts,
searches, event ids) are not overrun, but for the rounding of the sum of what is not kept one by
one; nor on repeats: an event at an offset that the state already reflects, or with an event id
that it remembers, changes nothing. How a state is kept within its bytes is in bounds.py.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from models.activity import NO_ACTIVITY, fold_activity
from models.packed_vector import to_four_bits
from stream.core.bounds import ID_BYTES, Added, bounded
from stream.core.events import Interaction, Review, Search, User
from stream.core.user_rows import Body, Written
from stream.core.user_state import (
    SOURCES,
    Act,
    Rules,
    Stated,
    TextAct,
    UserState,
    Vector,
    rounded,
)
from stream.messages import TextSentiment, Trigger

Outcome = Literal["folded", "repeat", "duplicate", "unknown_item", "not_personalized"]

#: Acts that make a user one of an item's takers, for co-occurrence and popularity.
TAKING = frozenset({"view", "click", "add_to_cart", "favorite", "purchase", "review", "search"})
_NUMBER_OF = {source: number for number, source in enumerate(SOURCES)}

#: A review's text says less about taste than the choice of the item does.
REVIEW_TEXT_SHARE = 0.5
#: A review without stars that no model has read: mild praise, since most reviewers are content.
UNRATED = 0.25


class Sourced(Struct, frozen=True, gc=False):
    """An event with its place: the exact source, not the topic it travelled through.

    ``vector``, shape (dim,), belongs to the text of a search, a review or a user's interests;
    ``sentiment`` to that of a review, where a model has read it.
    """

    source: str
    partition: int
    offset: int
    timestamp_ms: int
    event: Interaction | Search | Review | User
    vector: Vector | None = None
    sentiment: TextSentiment | None = None

    def event_time_ms(self) -> int:
        """Return when it happened, never later than the broker's own time allows for."""
        stated = self.event.updated_ms if isinstance(self.event, User) else self.event.event_time_ms
        return min(stated, self.timestamp_ms)


class Touch(Struct, frozen=True, gc=False):
    """A user took an item: beside which recent ones, and for the first time or again."""

    item_id: str
    others: tuple[str, ...]
    weight: float
    first: bool
    event_time_ms: int
    region: str | None


class Folded(Struct, frozen=True, gc=False):
    """The state after the events, and the body of its row; ``outcomes`` has one entry per event, in
    order."""

    state: UserState
    body: Body
    outcomes: list[Outcome]
    touches: list[Touch]
    #: Those that are to be answered: neither repeats nor duplicates.
    searches: list[Sourced]
    #: Those that a model has read, of a user who may be profiled: neither repeats nor duplicates.
    reviews: list[Sourced]
    #: The place of the last event that may cause a recommendation, if any did.
    trigger: Trigger | None
    #: How many event times lay in the future and were cut.
    n_future: int
    #: True when the state had to be cut to its bytes.
    is_trimmed: bool = False


def fold(
    before: UserState,
    events: Sequence[Sourced],
    vectors: Mapping[str, Vector],
    rules: Rules,
    written: Written | None = None,
) -> Folded:
    """Fold events into a state; ``written`` is what its row holds of it.

    ``vectors`` holds the known items, of the events at least those in ``items_of``; of earlier
    acts it is asked only when they leave the history.
    """
    folding = _Folding(before, vectors, rules)
    outcomes = [folding.fold(event) for event in events]
    state, body, is_trimmed = bounded(
        folding.freeze(), folding.added, vectors, rules, folding.trigger, written
    )
    return Folded(
        state,
        body,
        outcomes,
        folding.touches,
        folding.searches,
        folding.reviews,
        folding.trigger,
        folding.n_future,
        is_trimmed,
    )


def items_of(events: Iterable[Sourced]) -> set[str]:
    """Return the items of events."""
    items: set[str] = set()
    for sourced in events:
        event = sourced.event
        # Mostly an interaction, and a type alone is quicker to compare than one of two.
        if type(event) is Interaction or isinstance(event, Review):
            items.add(event.item_id)
        elif isinstance(event, Search):
            items.update(event.clicked_item_ids)
    return items


class _Folding:
    """What the state before becomes, event by event."""

    def __init__(self, before: UserState, vectors: Mapping[str, Vector], rules: Rules) -> None:
        self._vectors = vectors
        self._rules = rules
        self.touches: list[Touch] = []
        self.searches: list[Sourced] = []
        self.reviews: list[Sourced] = []
        self.trigger: Trigger | None = None
        self.n_future = 0
        offsets = before.offsets
        self._offsets = [*offsets, *[-1] * (len(SOURCES) - len(offsets))]
        self._ids = before.event_ids
        self._stated = before.stated
        self._begin(before)

    def _begin(self, before: UserState) -> None:
        self._before = before
        self.added = Added(self._rules.long_half_life_ms)
        #: Sorted, as they are in the state.
        self._acts = list(before.acts)
        #: Items of those acts that make a taker, those last taken last; None until asked for.
        self._taken: dict[str, None] | None = None
        self._texts = before.texts
        self._activity = before.activity or NO_ACTIVITY
        self._region = (before.seen_region_ms, before.seen_region)

    def fold(self, sourced: Sourced) -> Outcome:
        source = _NUMBER_OF[sourced.source]
        if sourced.offset <= self._offsets[source]:
            return "repeat"
        self._offsets[source] = sourced.offset
        event = sourced.event
        if isinstance(event, User):
            return self._user(event, sourced)
        if self._stated.personalize and self._known(sourced.source, event.event_id):
            return "duplicate"
        if isinstance(event, Search):
            self.searches.append(sourced)
        if not self._stated.personalize:
            return "not_personalized"
        at_ms = self._event_time(event.event_time_ms, sourced.timestamp_ms)
        if isinstance(event, Interaction):
            outcome = self._interaction(event, at_ms)
            if event.type == "impression":
                return outcome
        elif isinstance(event, Search):
            outcome = self._search(event, sourced.vector, at_ms)
        else:
            outcome = self._review(event, sourced, at_ms)
        self._triggered(sourced, event.event_id, at_ms)
        return outcome

    def _known(self, source: str, event_id: str) -> bool:
        digest, ids = _event_hash(source, event_id), self._ids
        at = ids.find(digest)
        while at > 0 and at % ID_BYTES:  # across two of them
            at = ids.find(digest, at + 1)
        if at >= 0:
            return True
        self._ids = ids + digest
        return False

    def _event_time(self, event_time_ms: int, timestamp_ms: int) -> int:
        # The broker's time is part of the log, so a replay cuts the same event the same way. It is
        # -1 where the producer gave none and the broker does not either.
        if timestamp_ms < 0 or event_time_ms <= timestamp_ms + self._rules.max_future_ms:
            return event_time_ms
        self.n_future += 1
        return timestamp_ms

    def _cut(self, text: str) -> str:
        # A row and the messages made from it must stay small.
        return text.encode()[: self._rules.text_bytes_kept].decode(errors="ignore")

    def _interaction(self, event: Interaction, at_ms: int) -> Outcome:
        weight = self._rules.weights[event.type]
        if event.context and event.context.region and at_ms >= self._region[0]:
            self._region = (at_ms, self._cut(event.context.region))
        self._activity = fold_activity(
            self._activity, event.type, at_ms, event.price, event.quantity, None
        )
        if event.type == "impression":
            return self._impression(event.item_id, weight, at_ms)
        return self._act(event.item_id, event.type, weight, at_ms)

    def _impression(self, item_id: str, weight: float, at_ms: int) -> Outcome:
        # Too many to keep each, and too weak to wait for a vector.
        if item_id not in self._vectors:
            return "unknown_item"
        self.added.add(self._vectors[item_id], weight, at_ms)
        return "folded"

    def _act(self, item_id: str, kind: str, weight: float, at_ms: int) -> Outcome:
        if weight > 0 and kind in TAKING:
            self._touch(item_id, weight, at_ms)
        self._keep(Act(at_ms, item_id, kind, weight))
        return "folded" if item_id in self._vectors else "unknown_item"

    def _keep(self, act: Act) -> None:
        """Keep an act; the same under another event id is no new one, and in the sum perhaps."""
        acts = self._acts
        if not acts or acts[-1].event_time_ms < act.event_time_ms:
            acts.append(act)
            if self._taken is not None and act.weight > 0 and act.kind in TAKING:
                self._taken.pop(act.item_id, None)
                self._taken[act.item_id] = None
            return
        at = bisect_left(acts, act)
        if at == len(acts) or replace(acts[at], folded=False) != act:
            acts.insert(at, act)
            self._taken = None

    def _keep_text(self, text: TextAct) -> None:
        texts = self._texts
        at = bisect_left(texts, text)
        if at == len(texts) or replace(texts[at], folded=False) != text:
            self._texts = (*texts[:at], text, *texts[at:])

    def _touch(self, item_id: str, weight: float, at_ms: int) -> None:
        """Note that an item was taken; beside the last ones, the first time that it is."""
        if self._taken is None:
            newest_first = [
                a.item_id for a in reversed(self._acts) if a.weight > 0 and a.kind in TAKING
            ]
            self._taken = dict.fromkeys(reversed(dict.fromkeys(newest_first)))
        first = item_id not in self._taken
        others = reversed(self._taken) if first else ()
        last = tuple(islice(others, self._rules.cooccurrence_items))
        region = self._stated.region or self._region[1]
        self.touches.append(Touch(item_id, last, weight, first, at_ms, region))

    def _search(self, event: Search, vector: Vector | None, at_ms: int) -> Outcome:
        weight = self._rules.weights["search"]
        self._activity = fold_activity(self._activity, "search", at_ms, None, None, None)
        if vector is not None:
            self._keep_text(TextAct(at_ms, self._cut(event.query), to_four_bits(vector), weight))
        for item_id in event.clicked_item_ids:
            self._act(item_id, "click", self._rules.weights["click"], at_ms)
        return "folded"

    def _review(self, event: Review, sourced: Sourced, at_ms: int) -> Outcome:
        weight = rounded(self._rules.weights["review"] * _praise(event, sourced.sentiment))
        # Stars alone: churn models were fitted on what their writers said of themselves.
        self._activity = fold_activity(self._activity, "review", at_ms, None, None, event.rating)
        if sourced.vector is not None:
            self.added.add(sourced.vector, weight * REVIEW_TEXT_SHARE, at_ms)
        if sourced.sentiment is not None:
            self.reviews.append(sourced)
        return self._act(event.item_id, "review", weight, at_ms)

    def _user(self, event: User, sourced: Sourced) -> Outcome:
        """Take what is stated; the record and the vector of its interests come in any order."""
        before, interests = self._stated, self._cut("; ".join(event.interests))
        if event.updated_ms < before.updated_ms:
            return "folded"
        same = event.updated_ms == before.updated_ms and interests == before.interests
        has_vector = sourced.source == "interests" and sourced.vector is not None
        if event.updated_ms == before.updated_ms and has_vector and not same:
            # Two records of one millisecond: the vector must not speak for the other one.
            return "folded"
        vector = before.interests_vector if same else b""
        if sourced.source == "interests" and sourced.vector is not None:
            vector = to_four_bits(sourced.vector)
        self._stated = Stated(
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
        self._begin(UserState(stated=self._stated))
        self.touches, self.reviews, self.trigger = [], [], None

    def _triggered(self, sourced: Sourced, event_id: str, at_ms: int) -> None:
        topic = "users" if sourced.source == "interests" else sourced.source
        self.trigger = Trigger(
            topic=topic,
            partition=sourced.partition,
            offset=sourced.offset,
            event_id=event_id,
            event_time_ms=at_ms,
        )

    def freeze(self) -> UserState:
        """Return the state of all that is remembered, however much it is."""
        before = self._before
        return UserState(
            tuple(self._offsets),
            before.long,
            tuple(self._acts),
            self._texts,
            before.faded,
            self._activity,
            self._ids,
            self._stated,
            self._region[1],
            self._region[0],
            before.pending,
            before.recommended_ms,
            before.band,
        )


def _praise(event: Review, sentiment: TextSentiment | None) -> float:
    """Return -1 to 1: what the stars say, or without stars the text."""
    if event.rating is not None:
        return (event.rating - 3) / 2
    return UNRATED if sentiment is None else sentiment.sentiment


def _event_hash(source: str, event_id: str) -> bytes:
    name = f"{source}\x1f{event_id}".encode()
    return hashlib.blake2b(name, digest_size=8).digest()[:ID_BYTES]
