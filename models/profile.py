"""What the recommender knows of a shopper, and what it answers: plain values, no Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

ReasonKind = Literal[
    "similar_to_item",
    "taken_together",
    "matches_search",
    "matches_interest",
    "long_term_interest",
    "recent_interest",
    "popular",
    "new_arrival",
]
Source = Literal[
    "long_interest", "short_interest", "taken_together", "popular", "new_arrival", "stated_interest"
]


class Excluding(Protocol):
    """Item ids that may not be recommended, held in a way that cannot name them."""

    def __contains__(self, item_id: object, /) -> bool: ...

    def may_hold(self, hashes: NDArray[np.uint32], /) -> NDArray[np.bool_]:
        """Return for hashes by models.hashed_ids.hash_of, (n,), False for what is not held, (n,).

        What is True may still not be held; ``in`` says.
        """
        ...


class HistoryItem(Struct, frozen=True, gc=False):
    """One act on an item; ``weight`` > 0 speaks for it, < 0 against."""

    item_id: str
    weight: float
    event_time_ms: int


class HistoryText(Struct, frozen=True, gc=False):
    """One text of the shopper, with its unit vector, shape (dim,)."""

    kind: Literal["search", "interest"]
    text: str
    vector: NDArray[np.float32]
    weight: float
    event_time_ms: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One shopper at one moment. Acts and texts are in event-time order, newest last.

    ``long_interest`` and ``short_interest`` are the decayed sums of vectors, shape (dim,), with
    the decayed sum of their weights beside them (needed to centre them); None when empty.
    ``exclude`` are items that may not come back: bought within the window, disliked; so are those
    in ``exclude_hashed``, which cannot name them.
    """

    items: tuple[HistoryItem, ...]
    texts: tuple[HistoryText, ...]
    long_interest: NDArray[np.float32] | None
    long_weight: float
    short_interest: NDArray[np.float32] | None
    short_weight: float
    exclude: frozenset[str]
    region: str | None = None
    exclude_hashed: Excluding | None = None

    @property
    def cold_start(self) -> bool:
        """True while nothing the shopper did is known (stated interests are not acts)."""
        return not self.items and not any(text.kind == "search" for text in self.texts)


#: Digits behind the point that shares and scores are told with.
WEIGHT_DIGITS, SCORE_DIGITS = 4, 6


class Reason(Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an item was picked; ``weight`` is the share of the score it explains, 0..1.

    ``item_id``, ``query`` (a search) or ``text`` (a stated interest) says what of the shopper's.
    """

    kind: ReasonKind
    weight: float
    item_id: str | None = None
    query: str | None = None
    text: str | None = None


class RecommendedItem(Struct, frozen=True, gc=False):
    """An item of a list, at place ``rank`` from 1; as topic ``recommendations`` has it."""

    item_id: str
    rank: int
    score: float
    source: Source
    reasons: list[Reason]
