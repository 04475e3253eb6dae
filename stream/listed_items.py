"""How many different items were listed of late: what share of the catalogue shoppers get to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

#: Long enough that a quiet shop's figure stands for something, short enough to see it fall.
WINDOW_S = 3600.0


class ListedItems:
    """The items listed in the last ``window_s``."""

    def __init__(self, clock: Callable[[], float], window_s: float = WINDOW_S) -> None:
        """``clock`` gives seconds, monotonic."""
        self._clock, self._window_s = clock, window_s
        self._listed_s: dict[str, float] = {}
        self._forgot_s = clock()

    def add(self, item_ids: Iterable[str]) -> None:
        """Note items that were listed now."""
        now_s = self._clock()
        self._listed_s.update(zip(item_ids, repeat(now_s), strict=False))
        # Now and then, since all are looked at; by whoever asks nothing may be changed, for that
        # is another thread.
        if now_s - self._forgot_s > self._window_s:
            oldest_s, self._forgot_s = now_s - self._window_s, now_s
            self._listed_s = {i: at_s for i, at_s in self._listed_s.items() if at_s >= oldest_s}

    def __len__(self) -> int:
        oldest_s = self._clock() - self._window_s
        return sum(at_s >= oldest_s for at_s in list(self._listed_s.values()))
