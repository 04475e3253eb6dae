"""Partial correlations of items: how far two go together beyond what the others explain.

Who buys much buys everything with everything, and of things of one theme each goes with each: a
cosine of counts says all of that again for every item of a history. In the inverse of the matrix
of counts, with a ridge on its diagonal, what a third item explains is gone (EASE: Steck,
"Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019; here made symmetrical). What two
items have against each other is left out: an item is no reason not to show another. What is left
is small, and would lose against texts whatever their share: it is told in the measure of cosines,
so that on average an item's largest is what its largest cosine is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.item_index import PADDING
from models.slab import Rows

#: Items told apart at most, those that most users took. Work grows by the cube: so many take some
#: 8 s of a core, and 550 MB for as long.
MOST_ITEMS = 4_096
#: Of each item so many are kept, the largest.
KEPT = 256

#: Lines of a matrix gone through at once: what holds the interpreter takes some 5 ms.
_AT_ONCE = 256

Matrix = NDArray[np.float32]

#: Rows (t,), the place in the rows asked for of what each goes with (t,), and how far (t,).
Together = tuple[Rows, NDArray[np.int64], Matrix]


class Cosines(Protocol):
    """models.neighbours.NeighbourTable"""

    def get(self, rows: Rows, /) -> Together: ...
    def shares(self, rows: Rows, ridge: float, /) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of some rows (n,) as of one time: ``users`` (n,) who took each; with each up to w
    other rows, PADDING behind the last, and the ``counts`` of users who took both, both (n, w)."""

    rows: Rows
    users: NDArray[np.float64]
    others: NDArray[np.int32]
    counts: Matrix

    def matrix(self) -> Matrix:
        """Return how many took both, (n, n), symmetrical; where the two items disagree, since one
        was told later or counts more others, the larger counts."""
        n = len(self.rows)
        largest = max(int(self.others.max(initial=0)), int(self.rows.max(initial=0)))
        # PADDING, the last place, and what is not among the rows go into a column of their own.
        place_of = np.full(largest + 2, n)
        place_of[self.rows] = np.arange(n)
        both = np.zeros((n, n + 1), np.float32)
        for start in range(0, n, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            np.put_along_axis(both[some], place_of[self.others[some]], self.counts[some], axis=1)
        square = np.ascontiguousarray(both[:, :n])
        # Zero as well as what is not a number, as cosines have it.
        return np.fmax(np.fmax(square, square.T), 0, dtype=np.float32)


def partial_correlations(both: Matrix, users: NDArray[np.float64], ridge: float) -> Matrix:
    """Return those above 0 of items that were taken together, (n, n), and 0 elsewhere.

    ``both`` (n, n) is symmetrical, ``users`` (n,); ``ridge`` above 0, in users.
    """
    if not len(users):
        return np.zeros_like(both)
    # Those who take two items again count again, but as users once.
    matrix = np.minimum(both, _roots(users))
    diagonal = np.diag_indices(len(users))
    while True:
        matrix[diagonal] = users + ridge
        try:
            np.linalg.cholesky(matrix)
            break
        except np.linalg.LinAlgError:
            # Counts that are cut, or of a window of acts, need not be those of any sets of users.
            ridge *= 2
    found = np.asarray(np.linalg.inv(matrix), np.float32)
    scales = 1 / np.sqrt(found[diagonal])
    found *= -scales[:, None]
    found *= scales
    found *= both > 0
    found[diagonal] = 0
    return np.maximum(found, 0, out=found)


def _roots(users: NDArray[np.float64]) -> Matrix:
    """Return the roots of the products of users, (n, n)."""
    roots = np.sqrt(users).astype(np.float32)
    return roots[:, None] * roots


def _measure(both: Matrix, users: NDArray[np.float64], found: Matrix) -> float:
    """Return how many times as large as the largest found of an item its largest cosine is."""
    cosines = both / _roots(users).clip(min=1e-6)
    largest = cosines.max(axis=1, initial=0).clip(max=1).sum()
    of_found = found.max(axis=1, initial=0).sum()
    return float(largest / of_found) if of_found > 0 else 1.0


class PartialCorrelations:
    """The largest partial correlations of items by row, as of one time."""

    def __init__(self, rows: Rows, found: Matrix, measure: float) -> None:
        """``found`` is of the rows with each other, (n, n); told so many times as large."""
        n, kept = found.shape[0], min(KEPT, found.shape[0])
        self._line = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
        self._line[rows] = np.arange(n)
        largest = np.empty((n, kept), np.int64)
        for start in range(0, n, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            largest[some] = np.argpartition(-found[some], kept - 1, axis=1)[:, :kept]
        # In the order of the rows, whatever the partition made of them.
        largest.sort(axis=1)
        self._others = rows[largest]
        self._strengths: Matrix = np.take_along_axis(found, largest, axis=1) * np.float32(measure)
        self._measure = measure

    @classmethod
    def of(cls, counted: Counted, ridge: float) -> PartialCorrelations:
        """Compare all items that were counted; takes seconds for thousands of them."""
        both, users = counted.matrix(), counted.users
        found = partial_correlations(both, users, ridge)
        return cls(counted.rows, found, _measure(both, users, found))

    @classmethod
    def of_none(cls) -> PartialCorrelations:
        return cls(np.empty(0, np.int64), np.empty((0, 0), np.float32), 1.0)

    def beside(self, cosines: Cosines, rows: Rows, ridge: float) -> Together:
        """Return what goes with some rows as ``get`` does, and for rows that were not compared
        what the table of cosines has, made smaller by the ridge: what is left of a partial
        correlation where no third item explains anything."""
        others, places, strengths = self.get(rows)
        is_rest = self._lines(rows) < 0
        if not is_rest.any():
            return others, places, strengths
        rest, of_rest, cosine = cosines.get(np.where(is_rest, rows, PADDING))
        shares = cosines.shares(rows, ridge)[of_rest] * cosines.shares(rest, ridge)
        shares *= self._measure**2
        at = np.concatenate([places, of_rest])
        order = np.argsort(at, kind="stable")
        strengths = np.concatenate([strengths, cosine * np.sqrt(shares, dtype=np.float32)])
        return np.concatenate([others, rest])[order], at[order], strengths[order]

    def get(self, rows: Rows) -> Together:
        """Return what goes with some rows, one after the other: the rows (t,), the place in
        ``rows`` of what each goes with (t,), and how far (t,), above 0."""
        lines = self._lines(rows)
        places = np.flatnonzero(lines >= 0)
        others, strengths = self._others[lines[places]], self._strengths[lines[places]]
        says = strengths > 0
        return others[says], np.repeat(places, says.sum(axis=1)), strengths[says]

    def drop(self, row: int) -> None:
        """Forget what goes with a row."""
        if row < len(self._line):
            self._line[row] = -1

    def _lines(self, rows: Rows) -> NDArray[np.int64]:
        inside = (rows >= 0) & (rows < len(self._line))
        lines = np.full(len(rows), PADDING, np.int64)
        lines[inside] = self._line[rows[inside]]
        return lines
