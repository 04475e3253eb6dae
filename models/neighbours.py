"""Neighbours and popularity of items by row: decayed counts, compared at one common time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models import native
from models.item_index import PADDING
from models.partial_correlations import Counted
from models.rows import Scalar, grown
from models.slab import Rows


@dataclass(frozen=True, slots=True)
class NeighbourFacts:
    """Decayed counts of one item as of ``as_of_ms``.

    ``n_users`` took the item; ``neighbours`` are (other item, users who took both).
    ``popularity`` decays faster, and is split by region in ``regions``; ``lasting`` is of the same
    acts and decays as the others do, 0 where it is not known.
    """

    item_id: str
    as_of_ms: int
    n_users: float
    neighbours: Sequence[tuple[str, float]] = ()
    popularity: float = 0.0
    regions: Mapping[str, float] = field(default_factory=dict)
    lasting: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """The other rows taken with an item, shape (n,), and how many users took both, shape (n,)."""

    rows: NDArray[np.int32]
    counts: NDArray[np.float32]


class NeighbourTable:
    """Co-occurrence by row. Counts of different times meet as logarithms moved to time zero.

    The neighbours of an item lie in a line of a table as wide as the longest of them, so that those
    of many items are read at once.
    """

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        # By row. 0 = no line, else one more than its number.
        self._line = np.zeros(0, np.int64)
        self._n_users = np.zeros(0, np.float64)
        self._as_of_ms = np.zeros(0, np.int64)  # 0 = unknown
        # Half of log2(users) as of time zero; infinite while unknown, so that C is 0.
        self._half_log_users = np.zeros(0, np.float64)
        # By line. Others' rows, PADDING behind the last; how many users took both; log2 of that as
        # of time zero, less the row's own half: ready for the others'.
        self._others = np.zeros((0, 0), np.int32)
        self._counts = np.zeros((0, 0), np.float32)
        self._log_counts = np.zeros((0, 0), np.float64)
        self._n_lines = 0
        self._free: list[int] = []

    def put(self, row: int, taken: Taken, n_users: float, as_of_ms: int) -> None:
        """Replace what is known of a row; neighbours may be rows of which nothing is known yet."""
        self._grow(max(row, int(taken.rows.max(initial=0))) + 1)
        line, n = self._line_of(row, len(taken.rows)), len(taken.rows)
        self._n_users[row] = n_users
        self._as_of_ms[row] = as_of_ms
        moved = as_of_ms / self._half_life_ms
        half = (np.log2(n_users) + moved) / 2 if n_users > 0 else np.inf
        self._half_log_users[row] = half
        self._others[line, :n], self._others[line, n:] = taken.rows, PADDING
        self._counts[line, :n] = taken.counts
        with np.errstate(divide="ignore"):
            self._log_counts[line, :n] = np.log2(taken.counts.astype(np.float64)) + moved - half
        self._log_counts[line, n:] = -np.inf

    def _grow(self, n: int) -> None:
        known = len(self._half_log_users)
        self._line = grown(self._line, n)
        self._n_users = grown(self._n_users, n)
        self._as_of_ms = grown(self._as_of_ms, n)
        self._half_log_users = grown(self._half_log_users, n)
        self._half_log_users[known:] = np.inf

    def _line_of(self, row: int, width: int) -> int:
        """Return the line of a row, a new one where it has none, of at least this width."""
        line = int(self._line[row]) - 1
        if line < 0:
            line = self._free.pop() if self._free else self._n_lines
            self._n_lines = max(self._n_lines, line + 1)
            self._line[row] = line + 1
        n_lines, wide = self._others.shape
        if line >= n_lines or width > wide:
            shape = (max(n_lines, 2 * line, 64), max(wide, width))
            self._others = _enlarged(self._others, shape, PADDING)
            self._counts = _enlarged(self._counts, shape, 0)
            self._log_counts = _enlarged(self._log_counts, shape, -np.inf)
        return line

    def drop(self, row: int) -> None:
        if row < len(self._line) and self._line[row]:
            self._free.append(int(self._line[row]) - 1)
            self._line[row] = 0
            self._n_users[row] = self._as_of_ms[row] = 0
            self._half_log_users[row] = np.inf

    def get(self, rows: Rows) -> tuple[Rows, NDArray[np.int64], NDArray[np.float32]]:
        """Return all neighbours of some rows, one after the other: the neighbours (t,), the place
        in ``rows`` of what each is one of (t,), and C = both / sqrt(users * users), at most 1 (t,).

        What has no known count of users, on either side, is left out until it has.
        """
        if native.is_on():
            others, of_each, log_c = native.neighbours(
                rows, self._line, self._others, self._log_counts, self._half_log_users
            )
            c = np.exp2(log_c).astype(np.float32)
            if c.all():
                return others, of_each, c
            known = c > 0
            return others[known], of_each[known], c[known]
        lines = np.zeros(len(rows), np.int64)
        inside = np.flatnonzero((rows >= 0) & (rows < len(self._line)))
        lines[inside] = self._line[rows[inside]]
        places = np.flatnonzero(lines)
        lines = lines[places] - 1
        others = self._others[lines]
        log_c = self._log_counts[lines]
        log_c -= self._half_log_users[others]  # of PADDING any: it is minus infinity already
        c = np.exp2(np.minimum(log_c, 0)).astype(np.float32)
        known = c > 0
        of_each = np.repeat(places, np.count_nonzero(known, axis=1))
        return others[known].astype(np.int64), of_each, c[known]

    def most_taken(self, n: int) -> Counted:
        """Return the counts of the n rows that most users took, as of the newest of all."""
        held = np.flatnonzero(self._line)
        now_ms = int(self._as_of_ms.max(initial=0))
        users = self.users(held, now_ms)
        best = np.sort(np.argsort(-users, kind="stable")[:n])
        rows, users = held[best], users[best]
        lines = self._line[rows] - 1
        ages = (now_ms - self._as_of_ms[rows]) / self._half_life_ms
        counts = self._counts[lines] * np.exp2(-ages)[:, None].astype(np.float32)
        return Counted(rows, users, self._others[lines], counts)

    def shares(self, rows: Rows, ridge: float) -> NDArray[np.float64]:
        """Return users / (users + ridge) of rows, (n,), as of the newest of all."""
        users = self.users(rows, int(self._as_of_ms.max(initial=0)))
        return users / (users + ridge)

    def users(self, rows: Rows, now_ms: int) -> NDArray[np.float64]:
        """Return the decayed count of users of each row as of now, (n,); 0 where unknown."""
        self._grow(int(rows.max(initial=0)) + 1)
        log_users = 2 * self._half_log_users[rows] - now_ms / self._half_life_ms
        return np.where(np.isinf(log_users) | (rows < 0), 0.0, np.exp2(np.minimum(log_users, 60)))

    def rows(self) -> Iterator[tuple[int, Taken, float, int]]:
        """Yield row, what is taken with it, its users, as of when."""
        for row in np.flatnonzero(self._line).tolist():
            line = int(self._line[row]) - 1
            n = int(np.count_nonzero(self._others[line] != PADDING))
            taken = Taken(self._others[line, :n].copy(), self._counts[line, :n].copy())
            yield row, taken, float(self._n_users[row]), int(self._as_of_ms[row])


def _enlarged(table: NDArray[Scalar], shape: tuple[int, int], filling: float) -> NDArray[Scalar]:
    larger = np.full(shape, filling, table.dtype)
    larger[: table.shape[0], : table.shape[1]] = table
    return larger
