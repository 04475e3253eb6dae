"""What a shopper did and said -> weighted elements of history, for the hybrid score.

The score of an item x is a sum over elements h1..hn, newest last:
``score(x) = sum_j lam^(n-j) * w_j * [a * S(x, hj) + (1 - a) * C(x, hj)] / sum_j |w_j|``
which for equal weights is the training-free hybrid ``sum_j lam^(n-j) * [...] / n`` itself. Where
w_j < 0, S counts only above 0: to dislike boots is no reason to be shown their opposite.

What an element is:
- The acts on one item are one element, at the time of the latest: a shopper who views, carts and
  buys an item moves one step on, not three. Its weight is the acts' sum, kept within what a
  single act of theirs said: ten views are a view, a purchase taken back by a dislike is negative.
- A search is an element without co-occurrence. A stated interest is older than every act, so it
  fades as acts come in.
- Acts of one moment take one step together: of an order's lines none is newer than another.
- What speaks against an item (weight <= 0) takes no step: disliking things does not age the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.item_index import PADDING, Vectors
from models.profile import HistoryItem, HistoryText, Profile
from models.slab import Rows

ElementKind = Literal["item", "search", "interest"]

# What weighs less than this beside the heaviest element cannot move an item in the ranking.
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True, slots=True)
class Evidence:
    """The elements of one profile: items first, then texts.

    ``coefficients`` (n,) are ``lam^(n-j) * w_j / sum |w|``; ``rows`` (n,) are catalogue rows,
    PADDING for texts; ``labels`` are item ids or texts. ``reach``, the sum of the absolute
    coefficients, bounds the score: what is added to it is measured in this unit.
    """

    kinds: tuple[ElementKind, ...]
    labels: tuple[str, ...]
    rows: Rows
    coefficients: NDArray[np.float32]
    texts: tuple[Vectors, ...]
    reach: float

    def __len__(self) -> int:
        return len(self.kinds)


@dataclass(slots=True)
class _Element:
    kind: ElementKind
    label: str
    row: int
    weight: float
    event_time_ms: int
    text: Vectors | None = None
    coefficient: float = 0.0


def evidence_of(profile: Profile, rows: Sequence[int], step_decay: float) -> Evidence:
    """Return the evidence of a profile; ``rows`` are those of ``profile.items``, in order.

    Items the catalogue does not know (PADDING) say nothing and take no step.
    """
    elements = _items(profile.items, rows) + [_text(text) for text in profile.texts]
    total = sum(abs(element.weight) for element in elements)
    steps = 0
    newest_first = sorted(elements, key=_oldest_first, reverse=True)
    for _, of_moment in groupby(newest_first, key=_oldest_first):
        takes_step = False
        for element in of_moment:
            element.coefficient = step_decay**steps * element.weight / total if total else 0.0
            takes_step |= element.weight > 0
        steps += takes_step
    least = _NEGLIGIBLE * max((abs(e.coefficient) for e in elements), default=0.0)
    told = [e for e in elements if abs(e.coefficient) > least]
    return Evidence(
        kinds=tuple(e.kind for e in told),
        labels=tuple(e.label for e in told),
        rows=np.fromiter((e.row for e in told), np.int64, len(told)),
        coefficients=np.fromiter((e.coefficient for e in told), np.float32, len(told)),
        texts=tuple(e.text for e in told if e.text is not None),
        reach=sum(abs(e.coefficient) for e in told) or 1.0,
    )


def _items(history: Sequence[HistoryItem], rows: Sequence[int]) -> list[_Element]:
    acts: dict[int, list[HistoryItem]] = {}
    for act, row in zip(history, rows, strict=True):
        if row != PADDING:
            acts[row] = [*acts.pop(row, ()), act]
    return [
        _Element("item", of_it[-1].item_id, row, _weight(of_it), of_it[-1].event_time_ms)
        for row, of_it in acts.items()
    ]


def _weight(acts: Sequence[HistoryItem]) -> float:
    if len(acts) == 1:
        return acts[0].weight
    weights = [act.weight for act in acts]
    return min(max(sum(weights), min(weights)), max(weights))


def _text(text: HistoryText) -> _Element:
    return _Element(text.kind, text.text, PADDING, text.weight, text.event_time_ms, text.vector)


def _oldest_first(element: _Element) -> tuple[bool, int]:
    # Stated interests are of one moment: which was named first says nothing.
    if element.kind == "interest":
        return False, 0
    return True, element.event_time_ms
