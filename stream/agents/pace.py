"""Pace: how many lists a turn of the preference stage may make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

#: Lists made in one turn, at half a millisecond to one each: what everybody else waits for.
LISTS_A_TURN = 64
#: A batch of so many events, or of as many as there may be, is one of a backlog.
MANY_EVENTS = 1_000
#: How long it speaks, once it is done, for more behind it: not all of a backlog's are large.
BEHIND_S = 0.25
#: While behind, so often a turn makes lists all the same.
BEHIND_EVERY_S = 0.5


class Pace:
    """Has what shoppers did be read first, and lists be made from all of it.

    A list costs as much as folding several events, and one that is made while newer acts of its
    shopper wait is made in vain. So a backlog is read before it is answered: once it is read, each
    shopper gets one list. Those who wait are served in the order in which they began to, a few at
    a time, so that whoever acts meanwhile is answered at once; and a few are served while a
    backlog lasts, or a worker that never catches up would answer nobody.

    What is behind is told by the size of batches, not by clocks, which may be wrong.
    """

    def __init__(self, batch_max: int, clock: Callable[[], float]) -> None:
        """``batch_max`` is the most a batch may hold; ``clock`` gives seconds, monotonic."""
        self._many = min(batch_max, MANY_EVENTS)
        self._clock = clock
        self._behind_until_s = self._next_s = clock()

    @contextmanager
    def reading(self, n_events: int) -> Iterator[None]:
        """Note the size of a batch taken from the topics, for as long as it is worked on."""
        if n_events < self._many:
            yield
            return
        self._behind_until_s = inf
        try:
            yield
        finally:
            self._behind_until_s = self._clock() + BEHIND_S

    def room_for_batch(self) -> int:
        """Return how many of those in the batch that was just taken may be answered at once."""
        return 0 if self._is_behind() else LISTS_A_TURN

    def room_for_waiting(self) -> int:
        """Return how many of those who wait may be answered now."""
        now_s = self._clock()
        if self._is_behind() and now_s < self._next_s:
            return 0
        self._next_s = now_s + BEHIND_EVERY_S
        return LISTS_A_TURN

    def _is_behind(self) -> bool:
        return self._clock() < self._behind_until_s
