"""bounds: a state kept within its counts and its bytes, by one rule.

What leaves the recent acts and searches goes into the sum of the lasting interest, and what may
not be recommended into hashes. The sum is rounded, so it is added to seldom: when an act that is
not in it yet has to leave, all that wait go in together.

Where a row is too long, the first step of ``STEPS`` that still has something gives way, oldest
first. What a purchase or a dislike excludes stays excluded: its hashes get shorter, so that other
items are taken for it. Offsets, activity and what the shop states are never cut; a row that is
too long by those is stored as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec.structs import replace

from models.packed_vector import PackedSum
from stream.core.user_rows import Body, Written, longest, to_body
from stream.core.user_state import (
    NO_PERIOD,
    PERIOD_MS,
    STAMP_BYTES,
    Act,
    Faded,
    Interest,
    Rules,
    TextAct,
    UserState,
    Vector,
    fade,
    rounded,
)
from stream.messages import Trigger

#: Of the hash of an event id, so that two events of one user are hardly ever taken for one.
ID_BYTES = 6

#: What gives way, and how far, in this order. For ``faded`` the number is the bits of a hash.
STEPS: Final = (
    ("faded", 16),
    ("texts", 1),
    ("event_ids", 32),
    ("acts", 24),
    ("event_ids", 16),
    ("acts", 12),
    ("event_ids", 8),
    ("texts", 0),
    ("acts", 8),
    ("faded", 12),
    ("event_ids", 4),
    ("acts", 6),
    ("faded", 10),
    ("acts", 4),
    ("interests", 0),
    ("faded", 8),
    ("acts", 0),
    ("event_ids", 0),
    ("long", 0),
)
#: A row that was too long is cut somewhat shorter than it may be, or every event would cut it.
SLACK_BYTES = 80
#: An act beside its item id: time, kind and place.
ACT_BYTES = 6


@dataclass(slots=True)
class Added:
    """What is to go into the sum of the lasting interest, decayed to ``as_of_ms``."""

    half_life_ms: float
    vector: Vector | None = None
    weight: float = 0.0
    as_of_ms: int = 0

    def add(self, vector: Vector, weight: float, event_time_ms: int) -> None:
        """Add what happened at a time, shape (dim,), with its weight."""
        self._add_sum(np.float32(weight) * vector, weight, event_time_ms)

    def _add_sum(self, vector: Vector, weight: float, event_time_ms: int) -> None:
        if self.vector is None:
            self.vector, self.as_of_ms = np.zeros(len(vector), np.float32), event_time_ms
        if event_time_ms > self.as_of_ms:
            old = 0.5 ** ((event_time_ms - self.as_of_ms) / self.half_life_ms)
            self.vector *= np.float32(old)
            self.weight *= old
            self.as_of_ms = event_time_ms
            self.vector += vector
        else:
            new = 0.5 ** ((self.as_of_ms - event_time_ms) / self.half_life_ms)
            self.vector += vector if new == 1 else np.float32(new) * vector
            weight *= new
        self.weight += weight

    def add_all(
        self, vectors: Sequence[Vector], weights: Sequence[float], event_times_ms: Sequence[int]
    ) -> None:
        """Add many at once, one after the other: a product of matrices would add as the machine
        likes, and native code otherwise."""
        newest_ms = max(event_times_ms)
        summed, total = np.zeros(len(vectors[0]), np.float32), 0.0
        for vector, weight, at_ms in zip(vectors, weights, event_times_ms, strict=True):
            share = weight * 0.5 ** ((newest_ms - at_ms) / self.half_life_ms)
            summed += np.float32(share) * vector
            total += share
        self._add_sum(summed, total, newest_ms)

    def into(self, interest: Interest | None, turn: int) -> Interest | None:
        """Return the interest with what was added, rounded (see PackedSum)."""
        if self.vector is None:
            return interest
        as_of_ms, weight = self.as_of_ms, self.weight
        if interest is None:
            summed = PackedSum.of(self.vector, turn)
        else:
            as_of_ms = max(as_of_ms, interest.as_of_ms)
            old = 0.5 ** ((as_of_ms - interest.as_of_ms) / self.half_life_ms)
            new = 0.5 ** ((as_of_ms - self.as_of_ms) / self.half_life_ms)
            summed = interest.packed().decayed(old).plus(self.vector * np.float32(new), turn)
            weight = interest.weight * old + self.weight * new
        self.vector, self.weight, self.as_of_ms = None, 0.0, 0
        return Interest(summed.values, summed.steps, summed.unit, rounded(weight), as_of_ms)


def bounded(
    state: UserState,
    added: Added,
    vectors: Mapping[str, Vector],
    rules: Rules,
    trigger: Trigger | None,
    written: Written | None = None,
) -> tuple[UserState, Body, bool]:
    """Return the state with ``added`` in it, cut to the counts and the bytes of the rules; the
    body of its row; and whether the bytes made a cut necessary.

    ``trigger`` is what the row may have to hold as pending on top, ``written`` what was
    written of the state before.
    """
    bounding = _Bounding(added, vectors, rules)
    state = bounding.keep(state, rules.history_items, rules.history_texts)
    n_too_many = len(state.event_ids) - ID_BYTES * rules.event_id_memory
    if n_too_many > 0:
        state = replace(state, event_ids=state.event_ids[n_too_many:])
    return bounding.cut(state, trigger or state.pending, written)


@dataclass(frozen=True, slots=True)
class _Bounding:
    added: Added
    vectors: Mapping[str, Vector]
    rules: Rules

    def cut(
        self, state: UserState, pending: Trigger | None, written: Written | None
    ) -> tuple[UserState, Body, bool]:
        room, body = self.rules.max_state_bytes - STAMP_BYTES, to_body(state, written)
        over = longest(body, state, pending) - room
        if over <= 0:
            return state, body, False
        over += SLACK_BYTES
        for step in STEPS:
            while over > 0 and (given := self._give_way(state, step, over)):
                state, freed = given
                over -= freed
                if over <= 0:  # as far as can be told without writing it
                    body = to_body(state)
                    over = longest(body, state, pending) - room
        return state, body if over <= 0 else to_body(state), True

    def _give_way(
        self, state: UserState, step: tuple[str, int], over: int
    ) -> tuple[UserState, int] | None:
        """Return the state after a step and about the bytes it freed; None: nothing to give."""
        what, least = step
        if what == "acts" and (n := len(state.acts)) > least:
            mean = sum(len(act.item_id) for act in state.acts) / n + ACT_BYTES
            n_kept = max(least, n - 1 - int(over / mean))
            return self.keep(state, n_kept, len(state.texts)), int((n - n_kept) * mean) + 1
        if what == "texts" and len(state.texts) > least:
            freed = len(state.texts[0].vector) + len(state.texts[0].text)
            return self.keep(state, len(state.acts), len(state.texts) - 1), freed
        if what == "event_ids" and (n := len(state.event_ids) // ID_BYTES) > least:
            n_kept = max(least, n - 1 - over // ID_BYTES)
            kept = state.event_ids[len(state.event_ids) - n_kept * ID_BYTES :]
            return replace(state, event_ids=kept), (n - n_kept) * ID_BYTES
        if what == "faded" and (faded := shorter(state.faded, least)):
            freed = n_bytes(state.faded) - n_bytes(faded)
            return replace(state, faded=faded), freed
        if what == "interests" and (vector := state.stated.interests_vector):
            return replace(state, stated=replace(state.stated, interests_vector=b"")), len(vector)
        if what == "long" and state.long is not None:
            return replace(state, long=None), len(state.long.values)
        return None

    def keep(self, state: UserState, n_acts: int, n_texts: int) -> UserState:
        """Return the state with its newest acts and searches; what leaves them goes where it
        belongs, and so does what was added."""
        if len(state.acts) <= n_acts and len(state.texts) <= n_texts and self.added.vector is None:
            return state
        gone = state.acts[: max(len(state.acts) - n_acts, 0)]
        gone_texts = state.texts[: max(len(state.texts) - n_texts, 0)]
        if any(a.item_id in self.vectors for a in gone if not a.folded) or not all(
            text.folded for text in gone_texts
        ):
            state = self._settled(state)
        if gone or gone_texts:
            state = replace(
                state,
                acts=state.acts[len(gone) :],
                texts=state.texts[len(gone_texts) :],
                faded=self._faded(state, gone),
            )
        if self.added.vector is not None:
            state = replace(state, long=self.added.into(state.long, sum(state.offsets)))
        return state

    def _settled(self, state: UserState) -> UserState:
        """Put all acts and searches that wait, and can, into the sum."""
        known = {
            act.item_id: self.vectors[act.item_id]
            for act in state.acts
            if not act.folded and act.item_id in self.vectors
        }
        acts = [act for act in state.acts if not act.folded and act.item_id in known]
        texts = [text for text in state.texts if not text.folded]
        waiting: list[Act | TextAct] = [*acts, *texts]
        if not waiting:
            return state
        self.added.add_all(
            [*[known[act.item_id] for act in acts], *[text.array() for text in texts]],
            [event.weight for event in waiting],
            [event.event_time_ms for event in waiting],
        )
        return replace(
            state,
            acts=tuple(
                [
                    Act(act.event_time_ms, act.item_id, act.kind, act.weight, folded=True)
                    if act.item_id in known
                    else act
                    for act in state.acts
                ]
            ),
            texts=tuple([replace(text, folded=True) for text in state.texts]),
        )

    def _faded(self, state: UserState, gone: tuple[Act, ...]) -> tuple[Faded, ...]:
        left = [
            (act.event_time_ms // PERIOD_MS if act.kind == "purchase" else NO_PERIOD, act.item_id)
            for act in gone
            if act.kind in ("purchase", "dislike")
        ]
        if not left and not state.faded:
            return ()
        newest_ms = state.acts[-1].event_time_ms if state.acts else 0
        faded = fade(state.faded, left) if left else state.faded
        return without_past(faded, newest_ms, self.rules.purchase_exclusion_ms)


def without_past(
    faded: tuple[Faded, ...], newest_ms: int, exclusion_ms: float
) -> tuple[Faded, ...]:
    """Return the sets without the periods that are over."""
    oldest = int(newest_ms - exclusion_ms) // PERIOD_MS
    return tuple([f for f in faded if f.period >= oldest or f.period == NO_PERIOD])


def n_bytes(faded: tuple[Faded, ...]) -> int:
    """Return what the sets take."""
    return sum(len(one.raw) for one in faded)


def shorter(faded: tuple[Faded, ...], least_bits: int) -> tuple[Faded, ...] | None:
    """Return the sets with the longest of them made shorter, None when none can be."""
    for one in sorted(faded, key=lambda f: -len(f.raw)):
        ids = one.ids().coarser() if one.bits > least_bits else None
        if ids is not None and ids.bits >= least_bits:
            cut = Faded(one.period, ids.bits, ids.raw)
            return tuple(sorted(cut if f is one else f for f in faded))
    return None
