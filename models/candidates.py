"""What could be recommended to one shopper: rows of several sources, merged without repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.evidence import Evidence
from models.item_index import PADDING, Vectors
from models.slab import Rows


class CatalogueView(Protocol):
    """What the recommender reads of a catalogue (models.catalogue.Catalogue)."""

    def __len__(self) -> int: ...
    def rows(self, item_ids: Sequence[str]) -> Rows: ...
    def item_id(self, row: int) -> str: ...
    def recommendable(self, rows: Rows) -> NDArray[np.bool_]: ...
    def centred(self, rows: Rows) -> Vectors: ...
    def centre(self, vectors: Vectors, weights: NDArray[np.float32]) -> Vectors: ...
    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]: ...
    def neighbours(self, row: int) -> tuple[Rows, NDArray[np.float32]]: ...
    def popular(self, k: int, region: str | None, now_ms: int) -> Rows: ...
    def new_arrivals(self, k: int, now_ms: int) -> Rows: ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is shown to anyone of a region: rows of ``popular`` and ``new_arrival``, best first."""

    popular: Rows
    new_arrival: Rows


@dataclass(frozen=True, slots=True)
class Together:
    """The neighbours of a history, one entry per pair: item ``rows`` (e,) was taken beside element
    number ``elements`` (e,) of the evidence, with co-occurrence C ``strengths`` (e,)."""

    rows: Rows
    elements: NDArray[np.int64]
    strengths: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """What the index found for a shopper: ``rows`` (f,) and the text part of their scores, ``text``
    (f,), best first. What it did not find has a text part of ``beyond`` at most."""

    rows: Rows
    text: NDArray[np.float32]
    beyond: float


@dataclass(frozen=True, slots=True)
class Pool:
    """Distinct candidates of one shopper, m of them, recommendable and not excluded.

    ``rows`` (m,); ``text`` (m,), the text part of the score, NaN where only its bound is known;
    ``together`` (m,), the sum over the history of coefficient times C; ``popular`` (m,) and
    ``new_arrival`` (m,), 1 for the first of those lists falling to 0 behind the last. ``entries``
    (e,) are the positions of the pairs in Together, ``history`` (n,) those of the evidence's own
    items; PADDING for what is not in the pool.
    """

    rows: Rows
    text: NDArray[np.float32]
    together: NDArray[np.float32]
    popular: NDArray[np.float32]
    new_arrival: NDArray[np.float32]
    entries: NDArray[np.int64]
    history: NDArray[np.int64]

    def take(self, kept: NDArray[np.int64]) -> Pool:
        """Return the pool of the positions kept, in their order."""
        moved = np.full(len(self.rows) + 1, PADDING, np.int64)  # the last stands for PADDING
        moved[kept] = np.arange(len(kept))
        return Pool(
            rows=self.rows[kept],
            text=self.text[kept],
            together=self.together[kept],
            popular=self.popular[kept],
            new_arrival=self.new_arrival[kept],
            entries=moved[self.entries],
            history=moved[self.history],
        )


class Slots:
    """Catalogue row -> position in the pool being merged; one array, used again per shopper.

    Merging by a table of positions takes a tenth of the time of sorting the rows.
    """

    def __init__(self, n_rows: int) -> None:
        # One more than needed, so that a catalogue without rows has a slot to look into.
        self._position = np.full(n_rows + 1, PADDING, np.int64)

    def fill(self, rows: Rows) -> Rows:
        """Return the distinct rows, which are now at positions 0, 1, ..."""
        count = np.arange(len(rows))
        self._position[rows] = count
        distinct: Rows = rows[self._position[rows] == count]
        self._position[distinct] = count[: len(distinct)]
        return distinct

    def of(self, rows: Rows) -> NDArray[np.int64]:
        """Return positions, PADDING for rows that were not filled in."""
        inside = (rows >= 0) & (rows < len(self._position))
        return np.where(inside, self._position[np.where(inside, rows, 0)], PADDING)

    def clear(self, rows: Rows) -> None:
        """Make the slots fit for the next shopper; ``rows`` as ``fill`` returned them."""
        self._position[rows] = PADDING


def merge(
    found: Found,
    shelf: Shelf,
    together: Together,
    evidence: Evidence,
    exclude: Rows,
    catalogue: CatalogueView,
    slots: Slots,
) -> Pool:
    """Return the pool: each row of any source once, less the excluded and not recommendable."""
    rows = slots.fill(np.concatenate([found.rows, shelf.popular, shelf.new_arrival, together.rows]))
    at_found, at_entries = slots.of(found.rows), slots.of(together.rows)
    at_popular, at_new = slots.of(shelf.popular), slots.of(shelf.new_arrival)
    at_history, at_exclude = slots.of(evidence.rows), slots.of(exclude)
    slots.clear(rows)

    n = len(rows)
    weights = evidence.coefficients[together.elements] * together.strengths
    text = np.full(n, np.nan, np.float32)
    text[at_found] = found.text
    pool = Pool(
        rows=rows,
        text=text,
        together=np.bincount(at_entries, weights, n).astype(np.float32),
        popular=_falling(at_popular, n),
        new_arrival=_falling(at_new, n),
        entries=at_entries,
        history=at_history,
    )
    allowed = catalogue.recommendable(rows)
    allowed[at_exclude[at_exclude != PADDING]] = False
    return pool.take(np.flatnonzero(allowed))


def _falling(positions: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    values = np.zeros(n, np.float32)
    values[positions] = 1 - np.arange(len(positions), dtype=np.float32) / max(len(positions), 1)
    return values
