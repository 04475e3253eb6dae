"""StateCache: states of users who acted lately, so that their rows need not be understood again."""

from __future__ import annotations

from typing import NamedTuple

from stream.core.kept import NOTHING, Kept, read_kept

#: Some 4 KB each, or 5 KB without native code.
STATES_KEPT = 10_000

Who = tuple[int, str]  # partition, user


class Known(NamedTuple):
    """A row, and what it tells."""

    row: bytes
    kept: Kept


#: What is known of a user without a row.
NOBODY = Known(b"", NOTHING)


class StateCache:
    """The states of the users last written.

    A state comes back only for the very row that it was written as: whatever happened to the row
    meanwhile (a rebalance, a restore, another's write), there is nothing to invalidate.
    """

    def __init__(self, limit: int = STATES_KEPT) -> None:
        self._limit = limit
        self._states: dict[Who, Known] = {}

    def __len__(self) -> int:
        return len(self._states)

    def known(self, who: Who, row: bytes) -> Known:
        """Return what a user's row tells; raises as ``from_row`` does."""
        known = self._states.get(who)
        if known is not None and known.row == row:
            return known
        return Known(row, read_kept(row))

    def put(self, who: Who, known: Known) -> None:
        """Remember what was written; those longest not written are forgotten."""
        self._states.pop(who, None)
        self._states[who] = known
        if len(self._states) > self._limit:
            del self._states[next(iter(self._states))]
