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
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models import native
from models.item_index import PADDING, Vectors
from models.profile import HistoryItem, Profile
from models.slab import Rows

ElementKind = Literal["item", "search", "interest"]

# What weighs less than this beside the heaviest element cannot move an item in the ranking.
_NEGLIGIBLE = 1e-4
#: Earlier than any act.
_BEFORE_ALL = -1


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


def evidence_of(profile: Profile, rows: Sequence[int], step_decay: float) -> Evidence:
    """Return the evidence of a profile; ``rows`` are those of ``profile.items``, in order.

    Items the catalogue does not know (PADDING) say nothing and take no step.
    """
    [evidence] = evidences_of([profile], rows, step_decay)
    return evidence


def evidences_of(
    profiles: Sequence[Profile], rows: Sequence[int] | Rows, step_decay: float
) -> list[Evidence]:
    """Return the evidence of each profile; ``rows`` are those of all ``items``, in order."""
    if native.is_on():
        every_row = np.asarray(rows, np.int64)
        return native.gather(profiles, every_row, step_decay, _NEGLIGIBLE, Evidence)
    at_rows: list[int] = np.asarray(rows, np.int64).tolist()
    elements, lengths, start = _Elements(), [], 0
    for profile in profiles:
        before, end = len(elements.kinds), start + len(profile.items)
        elements.add(profile, at_rows[start:end])
        lengths.append(len(elements.kinds) - before)
        start = end
    owners = np.repeat(np.arange(len(profiles)), lengths)
    coefficients = _coefficients(elements, owners, len(profiles), step_decay)
    sizes = np.abs(coefficients)
    heaviest = np.zeros(len(profiles))
    np.maximum.at(heaviest, owners, sizes)
    is_told = (sizes > _NEGLIGIBLE * heaviest[owners]).tolist()
    evidences, begin, each = list[Evidence](), 0, coefficients.tolist()
    for length in lengths:
        end = begin + length
        told = [place for place in range(begin, end) if is_told[place]]
        values = [each[place] for place in told]
        evidences.append(
            Evidence(
                kinds=tuple([elements.kinds[place] for place in told]),
                labels=tuple([elements.labels[place] for place in told]),
                rows=np.array([elements.rows[place] for place in told], np.int64),
                coefficients=np.array(values, np.float32),
                texts=tuple([t for place in told if (t := elements.texts[place]) is not None]),
                reach=sum(map(abs, values)) or 1.0,
            )
        )
        begin = end
    return evidences


@dataclass(slots=True)
class _Elements:
    """The elements of some profiles in columns, one profile's behind another's."""

    kinds: list[ElementKind] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    texts: list[Vectors | None] = field(default_factory=list)

    def add(self, profile: Profile, rows: Sequence[int]) -> None:
        acts: dict[int, list[HistoryItem]] = {}
        for act, row in zip(profile.items, rows, strict=True):
            if row != PADDING:
                acts[row] = [*acts.pop(row, ()), act]
        self.kinds += ["item"] * len(acts)
        self.labels += [of_it[-1].item_id for of_it in acts.values()]
        self.rows += acts
        self.weights += [_weight(of_it) for of_it in acts.values()]
        self.times_ms += [of_it[-1].event_time_ms for of_it in acts.values()]
        self.texts += [None] * len(acts)
        for text in profile.texts:
            self.kinds.append(text.kind)
            self.labels.append(text.text)
            self.rows.append(PADDING)
            self.weights.append(text.weight)
            # Stated interests are of one moment: which was named first says nothing.
            self.times_ms.append(_BEFORE_ALL if text.kind == "interest" else text.event_time_ms)
            self.texts.append(text.vector)


def _coefficients(
    elements: _Elements, owners: NDArray[np.int64], n_owners: int, step_decay: float
) -> NDArray[np.float64]:
    """Return ``lam^(n-j) * w_j / sum |w|`` of each element, (n,)."""
    weights = np.array(elements.weights, np.float64)
    times_ms = np.array(elements.times_ms, np.int64)
    if not len(weights):
        return weights
    newest_first = np.lexsort((-times_ms, owners))
    of, at_ms = owners[newest_first], times_ms[newest_first]
    begins = np.ones(len(of), bool)  # a moment of a shopper
    begins[1:] = (of[1:] != of[:-1]) | (at_ms[1:] != at_ms[:-1])
    moments = np.cumsum(begins) - 1
    takes_step = np.bincount(moments, weights[newest_first] > 0) > 0
    before: NDArray[np.int64] = np.cumsum(takes_step) - takes_step
    first_of_owner = np.searchsorted(of, np.arange(n_owners))
    first_of_owner = np.minimum(first_of_owner, len(of) - 1)
    steps = np.empty(len(of))
    steps[newest_first] = before[moments] - before[moments[first_of_owner[of]]]
    totals = np.bincount(owners, np.abs(weights), n_owners)[owners]
    return np.asarray(step_decay**steps * weights / np.where(totals > 0, totals, 1.0))


def _weight(acts: Sequence[HistoryItem]) -> float:
    if len(acts) == 1:
        return acts[0].weight
    weights = [act.weight for act in acts]
    return min(max(sum(weights), min(weights)), max(weights))
