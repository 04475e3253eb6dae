"""StateCache: states of users who acted lately, so that their rows need not be understood again."""

from __future__ import annotations

from stream.core.user_rows import from_row
from stream.core.user_state import UserState

#: Some 5 KB each.
STATES_KEPT = 10_000

Who = tuple[int, str]  # partition, user


class StateCache:
    """The states of the users last written.

    A state comes back only for the very row that it was written as: whatever happened to the row
    meanwhile (a rebalance, a restore, another's write), there is nothing to invalidate.
    """

    def __init__(self, limit: int = STATES_KEPT) -> None:
        self._limit = limit
        self._states: dict[Who, tuple[bytes, UserState]] = {}

    def __len__(self) -> int:
        return len(self._states)

    def state_of(self, who: Who, row: bytes | None) -> UserState:
        """Return the state of a user's row; raises as ``from_row`` does."""
        if row is None:
            return UserState()
        known = self._states.get(who)
        return known[1] if known is not None and known[0] == row else from_row(row)

    def put(self, who: Who, row: bytes, state: UserState) -> None:
        """Remember what was written; those longest not written are forgotten."""
        self._states.pop(who, None)
        self._states[who] = row, state
        if len(self._states) > self._limit:
            del self._states[next(iter(self._states))]
