"""UserDraft: one user's part of a micro-batch, from stored rows to the rows to store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from stream.core.events import User
from stream.core.fold import Outcome, Sourced, Touch, fold, items_of
from stream.core.intake import Erasure, Taken
from stream.core.user_rows import Body, Written, row_of, to_body
from stream.core.user_state import SOURCES, Rules, Stated, UserState, Vector
from stream.messages import Band, Trigger

#: What became of an event; "erased" is one of a user who asked to be forgotten.
EventOutcome = Outcome | Literal["erased"]


def user_key(user_id: str) -> bytes:
    return user_id.encode()


def erasure_key(user_id: str) -> bytes:
    """Return the key that remembers an erasure without remembering the user.

    It begins with a byte that no UTF-8 text has, so it is no user's own key.
    """
    return b"\xfferased:" + hashlib.sha256(user_id.encode()).digest()[:16]


@dataclass(slots=True)
class UserDraft:
    """What a batch does to one user; ``erased_at`` is the offset of the tombstone, if erased."""

    user_id: str
    partition: int
    state: UserState
    loaded: UserState
    erased_at: int | None
    erased_before: bool
    taken: list[Taken] = field(default_factory=list)
    outcomes: list[EventOutcome] = field(default_factory=list)
    touches: list[Touch] = field(default_factory=list)
    #: To be answered; those that the ledger covers have been.
    searches: list[Sourced] = field(default_factory=list)
    #: To be told of; those that the ledger covers have been.
    reviews: list[Sourced] = field(default_factory=list)
    trigger: Trigger | None = None
    #: A trigger whose output the ledger covers already, though the row was lost.
    covered_trigger: Trigger | None = None
    erased_now: bool = False
    expired_now: bool = False
    #: What the last row holds, and the next one will where the state has not changed.
    written: Written | None = None
    #: Of the row to store, as the last fold left it; None when nothing was folded.
    body: Body | None = None
    #: The row to store, once it is made.
    row: bytes | None = None
    n_future: int = 0
    is_trimmed: bool = False

    @classmethod
    def load(
        cls,
        user_id: str,
        partition: int,
        state: UserState,
        erasure: bytes | None,
        written: Written | None = None,
    ) -> UserDraft:
        """Start from what is known of a user, and the stored mark of an erasure if there is one."""
        return cls(
            user_id=user_id,
            partition=partition,
            state=state,
            loaded=state,
            erased_at=None if erasure is None else int(erasure),
            erased_before=erasure is not None,
            written=written,
        )

    def items(self) -> set[str]:
        """Return the items whose vectors the fold needs."""
        return items_of(self._events(self.taken))

    @staticmethod
    def _events(taken: Sequence[Taken]) -> list[Sourced]:
        return [t.content for t in taken if isinstance(t.content, Sourced)]

    def apply(
        self, vectors: Mapping[str, Vector], rules: Rules, covered: Mapping[str, int]
    ) -> None:
        """Fold what was taken, in order; ``covered`` maps topics to the ledger's offsets."""
        waiting: list[Taken] = []
        for taken in self.taken:
            if isinstance(taken.content, Erasure):
                self._fold(waiting, vectors, rules, covered)
                waiting = []
                self._erase(taken.content)
            elif self._is_erased(taken):
                self.outcomes.append("erased")
            else:
                waiting.append(taken)
        self._fold(waiting, vectors, rules, covered)

    def _is_erased(self, taken: Taken) -> bool:
        """True for an event of an erased user; a new user record brings the user back."""
        content = taken.content
        if self.erased_at is None:
            return False
        comes_back = (
            isinstance(content, Sourced)
            and isinstance(content.event, User)
            and content.source == "users"
            and content.offset > self.erased_at
        )
        if comes_back:
            self.erased_at = None
        return not comes_back

    def _erase(self, erasure: Erasure) -> None:
        self.outcomes.append("folded")
        if erasure.offset <= self._erased_through():
            return
        self.state, self.body = UserState(), None
        self.erased_at, self.erased_now = erasure.offset, True
        self.touches, self.searches, self.reviews = [], [], []
        self.trigger, self.covered_trigger = None, None

    def _erased_through(self) -> int:
        """Return the offset up to which tombstones are known: that of the last, or of a return."""
        if self.erased_at is not None:
            return self.erased_at
        return self.state.offsets[SOURCES.index("users")]

    def _fold(
        self,
        taken: Sequence[Taken],
        vectors: Mapping[str, Vector],
        rules: Rules,
        covered: Mapping[str, int],
    ) -> None:
        """Fold the covered ones first, which lie before the others, and keep no output of them."""
        old = [t for t in taken if t.message.offset <= covered.get(t.message.topic, -1)]
        new = [t for t in taken if t.message.offset > covered.get(t.message.topic, -1)]
        if old:
            folded = fold(self.state, self._events(old), vectors, rules, self.written)
            self._keep(folded.state, folded.body)
            self.outcomes += folded.outcomes
            self.covered_trigger = folded.trigger
            self.is_trimmed |= folded.is_trimmed
        if new:
            folded = fold(self.state, self._events(new), vectors, rules, self.written)
            self._keep(folded.state, folded.body)
            self.outcomes += folded.outcomes
            self.touches += folded.touches
            self.searches += folded.searches
            self.reviews += folded.reviews
            self.trigger = folded.trigger or self.trigger
            self.n_future += folded.n_future
            self.is_trimmed |= folded.is_trimmed

    def _keep(self, state: UserState, body: Body) -> None:
        self.state, self.body, self.written = state, body, body.written

    def latest_ms(self) -> int:
        """Return the latest event time among what was taken, 0 if there is none."""
        return max((s.event_time_ms() for s in map(_content, self.taken) if s), default=0)

    def arrival_ms(self, trigger: Trigger) -> int:
        """Return when the broker got a trigger's event, or its event time if it came before."""
        for sourced in map(_content, self.taken):
            if sourced and (sourced.source, sourced.offset) == (trigger.topic, trigger.offset):
                return sourced.timestamp_ms
        return trigger.event_time_ms

    def publishable(self) -> bool:
        return self.erased_at is None and self.state.stated.personalize

    def note_due(self, trigger: Trigger) -> None:
        """Note what the next recommendation is due to."""
        self.state = msgspec.structs.replace(self.state, pending=trigger)

    def note_answered(self, now_ms: int) -> None:
        self.state = msgspec.structs.replace(self.state, pending=None, recommended_ms=now_ms)

    def note_band(self, band: Band) -> None:
        self.state = msgspec.structs.replace(self.state, band=band)

    def expire(self) -> None:
        """Forget a user long gone, but for what the shop states: that is not told again."""
        self.expired_now, self.body = True, None
        self.state = UserState(offsets=self.state.offsets, stated=self.state.stated)

    def rows(self) -> dict[bytes, bytes | None]:
        """Return the rows to store: the state, or its absence and the mark of the erasure."""
        rows: dict[bytes, bytes | None] = {}
        if self.expired_now and self.state.stated == Stated():
            rows[user_key(self.user_id)] = None
        elif self.erased_at is None and self.state is not self.loaded:
            rows[user_key(self.user_id)] = self.row = self._row()
            if self.erased_before:
                rows[erasure_key(self.user_id)] = None
        elif self.erased_at is not None and self.erased_now:
            rows[user_key(self.user_id)] = None
            rows[erasure_key(self.user_id)] = b"%d" % self.erased_at
        return rows

    def _row(self) -> bytes:
        body = to_body(self.state, self.written) if self.body is None else self.body
        self.written = body.written
        return row_of(body, self.state)


def _content(taken: Taken) -> Sourced | None:
    return taken.content if isinstance(taken.content, Sourced) else None
