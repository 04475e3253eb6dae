"""Kept: one user's state between row and row, in native code where that is built, else in Python.

Native code holds numbers and bytes in place of objects and folds interactions many times as fast;
whatever else happens to a user goes through fold.py, and both give the same bytes. With
``PREFSTREAM_NATIVE=0`` in the environment all of it is Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from models.activity import Activity
from models.native import is_wanted
from stream.core.fold import Outcome, Sourced, Touch, fold
from stream.core.user_rows import Body, Written, read_row, row_of, to_body
from stream.core.user_state import Rules, UserState, Vector
from stream.messages import Band, Trigger

try:
    from stream.core import _native
    from stream.core._native import acts_of
except ImportError:  # installed without a compiler
    _is_built = False
else:
    _is_built = True
_is_wanted = is_wanted()


class Kept(Protocol):
    """A user's state. It does not change but for what may be set here: ``copy`` it before."""

    pending: Trigger | None
    recommended_ms: int
    band: Band | None

    @property
    def personalize(self) -> bool: ...
    @property
    def activity(self) -> Activity | None: ...
    @property
    def has_acted(self) -> bool: ...

    def state(self) -> UserState:
        """Return all of it as Python objects."""

    def written(self) -> Written | None:
        """Return what its row begins with, as it was written last."""

    def copy(self) -> Kept: ...

    def row(self) -> bytes:
        """Return its row."""


class PythonUser:
    """A state as fold.py has it, with what is written of it and the body of its row if known."""

    __slots__ = ("_body", "_state", "_written")

    def __init__(
        self, state: UserState, written: Written | None = None, body: Body | None = None
    ) -> None:
        self._state, self._written, self._body = state, written, body

    @property
    def pending(self) -> Trigger | None:
        return self._state.pending

    @pending.setter
    def pending(self, trigger: Trigger | None) -> None:
        self._state = replace(self._state, pending=trigger)

    @property
    def recommended_ms(self) -> int:
        return self._state.recommended_ms

    @recommended_ms.setter
    def recommended_ms(self, now_ms: int) -> None:
        self._state = replace(self._state, recommended_ms=now_ms)

    @property
    def band(self) -> Band | None:
        return self._state.band

    @band.setter
    def band(self, band: Band | None) -> None:
        self._state = replace(self._state, band=band)

    @property
    def personalize(self) -> bool:
        return self._state.stated.personalize

    @property
    def activity(self) -> Activity | None:
        return self._state.activity

    @property
    def has_acted(self) -> bool:
        return self._state.activity is not None

    def state(self) -> UserState:
        return self._state

    def written(self) -> Written | None:
        return self._written

    def copy(self) -> PythonUser:
        return PythonUser(self._state, self._written, self._body)

    def row(self) -> bytes:
        body = to_body(self._state, self._written) if self._body is None else self._body
        self._written = body.written
        return row_of(body, self._state)


class Step(Struct, frozen=True, gc=False):
    """What events make of a user; see ``Folded``."""

    kept: Kept
    outcomes: list[Outcome]
    touches: list[Touch]
    searches: list[Sourced]
    reviews: list[Sourced]
    trigger: Trigger | None
    n_future: int
    is_trimmed: bool


__all__ = ["NOTHING", "Kept", "PythonUser", "Step", "acts_of", "is_native", "native_users"]
__all__ += ["read_kept", "step"]

#: Nobody's.
NOTHING: Kept = PythonUser(UserState())


def is_native() -> bool:
    """True where native code folds."""
    return _is_built and _is_wanted


def read_kept(row: bytes) -> Kept:
    """Return what a row tells; raises as ``from_row`` does."""
    user = _native.NativeUser.read(row) if is_native() else None
    return PythonUser(*read_row(row)) if user is None else user


def native_users(kept: Sequence[Kept]) -> list[_native.NativeUser] | None:
    """Return the users as native code has them, None where it cannot have one of them."""
    if not is_native():
        return None
    users = []
    for one in kept:
        user = (
            one if isinstance(one, _native.NativeUser) else _native.NativeUser.of(one.state(), None)
        )
        if user is None:
            return None
        users.append(user)
    return users


def step(kept: Kept, events: list[Sourced], vectors: Mapping[str, Vector], rules: Rules) -> Step:
    """Fold events into a user's state; see ``fold``."""
    user = _native_of(kept, events) if is_native() else None
    if user is None:
        folded = fold(kept.state(), events, vectors, rules, kept.written())
        return Step(
            PythonUser(folded.state, folded.body.written, folded.body),
            folded.outcomes,
            folded.touches,
            folded.searches,
            folded.reviews,
            folded.trigger,
            folded.n_future,
            folded.is_trimmed,
        )
    after, outcomes, touches, trigger, n_future, is_trimmed = user.fold(events, vectors, rules)
    return Step(after, outcomes, touches, [], [], trigger, n_future, is_trimmed)


def _native_of(kept: Kept, events: list[Sourced]) -> _native.NativeUser | None:
    """Return the user for native code to fold events into, None where it cannot."""
    if not kept.personalize or not _native.takes(events):
        return None
    if isinstance(kept, _native.NativeUser):
        return kept
    return _native.NativeUser.of(kept.state(), kept.written())
