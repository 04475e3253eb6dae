"""How many different items were listed of late: what share of the catalogue shoppers get to see."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

#: Long enough that a quiet shop's figure stands for something, short enough to see it fall.
WINDOW_S = 3600.0


class ListedItems:
    """The items listed in the last ``window_s``, those listed last at the end."""

    def __init__(self, clock: Callable[[], float], window_s: float = WINDOW_S) -> None:
        """``clock`` gives seconds, monotonic."""
        self._clock, self._window_s = clock, window_s
        self._listed_s: OrderedDict[str, float] = OrderedDict()

    def add(self, item_ids: Iterable[str]) -> None:
        """Note items that were listed now."""
        now_s, listed_s = self._clock(), self._listed_s
        for item_id in item_ids:
            listed_s[item_id] = now_s
            listed_s.move_to_end(item_id)
        self._forget(now_s)

    def __len__(self) -> int:
        self._forget(self._clock())
        return len(self._listed_s)

    def _forget(self, now_s: float) -> None:
        listed_s, oldest_s = self._listed_s, now_s - self._window_s
        while listed_s and next(iter(listed_s.values())) < oldest_s:
            listed_s.popitem(last=False)
