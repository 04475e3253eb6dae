"""UserDraft: one user's part of a micro-batch, from stored rows to the rows to store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from models.activity import Activity
from stream.core.events import User
from stream.core.fold import Outcome, Sourced, Touch
from stream.core.intake import Erasure, Taken
from stream.core.kept import Kept, PythonUser, Step, step
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


class UserDraft(Struct, gc=False):
    """What a batch does to one user; ``erased_at`` is the offset of the tombstone, if erased.

    Of ``kept`` little is read without making objects of all of it: see the properties.
    """

    user_id: str
    partition: int
    kept: Kept
    loaded: Kept
    erased_at: int | None
    erased_before: bool
    taken: list[Taken] = []
    outcomes: list[EventOutcome] = []
    touches: list[Touch] = []
    #: To be answered; those that the ledger covers have been.
    searches: list[Sourced] = []
    #: To be told of; those that the ledger covers have been.
    reviews: list[Sourced] = []
    trigger: Trigger | None = None
    #: A trigger whose output the ledger covers already, though the row was lost.
    covered_trigger: Trigger | None = None
    erased_now: bool = False
    expired_now: bool = False
    #: The row to store, once it is made.
    row: bytes | None = None
    n_future: int = 0
    is_trimmed: bool = False

    @classmethod
    def load(cls, user_id: str, partition: int, kept: Kept, erasure: bytes | None) -> UserDraft:
        """Start from what is known of a user, and the stored mark of an erasure if there is one."""
        erased_at = None if erasure is None else int(erasure)
        return cls(user_id, partition, kept, kept, erased_at, erasure is not None)

    @property
    def state(self) -> UserState:
        """All that is known of the user, as objects: made anew each time that it is asked for."""
        return self.kept.state()

    @property
    def pending(self) -> Trigger | None:
        """What a recommendation that is due and not out is due to."""
        return self.kept.pending

    @property
    def recommended_ms(self) -> int:
        """When the last recommendation was made, 0 for never."""
        return self.kept.recommended_ms

    @property
    def band(self) -> Band | None:
        """The band of the last assessment, None before the first."""
        return self.kept.band

    @property
    def activity(self) -> Activity | None:
        """What churn needs of the user's acts, None before the first."""
        return self.kept.activity

    @property
    def is_new(self) -> bool:
        """True when the user had not acted before."""
        return not self.loaded.has_acted

    @staticmethod
    def _events(taken: Sequence[Taken]) -> list[Sourced]:
        return [t.content for t in taken if isinstance(t.content, Sourced)]

    def apply(
        self, vectors: Mapping[str, Vector], rules: Rules, covered: Mapping[str, int]
    ) -> None:
        """Fold what was taken, in order; ``covered`` maps topics to the ledger's offsets."""
        if self._is_plain(covered):
            if self.taken:
                self._fold_new(self._events(self.taken), vectors, rules)
            return
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

    def _is_plain(self, covered: Mapping[str, int]) -> bool:
        """True where all that was taken is new, and nobody is or was erased: as mostly."""
        if self.erased_at is not None:
            return False
        for taken in self.taken:
            message = taken.message
            if message.offset <= covered.get(message.topic, -1) or type(taken.content) is Erasure:
                return False
        return True

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
        self.kept = PythonUser(UserState())
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
            self.covered_trigger = self._step(self._events(old), vectors, rules).trigger
        if new:
            self._fold_new(self._events(new), vectors, rules)

    def _fold_new(self, events: list[Sourced], vectors: Mapping[str, Vector], rules: Rules) -> None:
        after = self._step(events, vectors, rules)
        self.touches += after.touches
        self.searches += after.searches
        self.reviews += after.reviews
        self.trigger = after.trigger or self.trigger
        self.n_future += after.n_future

    def _step(self, events: list[Sourced], vectors: Mapping[str, Vector], rules: Rules) -> Step:
        after = step(self.kept, events, vectors, rules)
        self.kept = after.kept
        self.outcomes += after.outcomes
        self.is_trimmed |= after.is_trimmed
        return after

    def arrival_ms(self, trigger: Trigger) -> int:
        """Return when the broker got a trigger's event, or its event time if it came before."""
        for sourced in map(_content, self.taken):
            if sourced and (sourced.source, sourced.offset) == (trigger.topic, trigger.offset):
                return sourced.timestamp_ms
        return trigger.event_time_ms

    def publishable(self) -> bool:
        return self.erased_at is None and self.kept.personalize

    def note_due(self, trigger: Trigger) -> None:
        """Note what the next recommendation is due to."""
        self._own().pending = trigger

    def note_answered(self, now_ms: int) -> None:
        kept = self._own()
        kept.pending, kept.recommended_ms = None, now_ms

    def note_band(self, band: Band) -> None:
        self._own().band = band

    def _own(self) -> Kept:
        """Return what is kept, for setting something: what was loaded stays as it was."""
        if self.kept is self.loaded:
            self.kept = self.loaded.copy()
        return self.kept

    def expire(self) -> None:
        """Forget a user long gone, but for what the shop states: that is not told again."""
        self.expired_now, state = True, self.state
        self.kept = PythonUser(UserState(offsets=state.offsets, stated=state.stated))

    def rows(self) -> dict[bytes, bytes | None]:
        """Return the rows to store: the state, or its absence and the mark of the erasure."""
        rows: dict[bytes, bytes | None] = {}
        if self.expired_now and self.state.stated == Stated():
            rows[user_key(self.user_id)] = None
        elif self.erased_at is None and self.kept is not self.loaded:
            rows[user_key(self.user_id)] = self.row = self.kept.row()
            if self.erased_before:
                rows[erasure_key(self.user_id)] = None
        elif self.erased_at is not None and self.erased_now:
            rows[user_key(self.user_id)] = None
            rows[erasure_key(self.user_id)] = b"%d" % self.erased_at
        return rows


def _content(taken: Taken) -> Sourced | None:
    return taken.content if isinstance(taken.content, Sourced) else None
