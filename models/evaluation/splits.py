"""What a model may learn from and what it is asked for. No answer lies before its question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

#: Item numbers of a user, oldest first.
History = NDArray[np.int64]


class LeftOut(NamedTuple):
    """Histories, and the one item of each user that comes next."""

    histories: list[History]
    targets: list[History]


def leave_one_out(sequences: Sequence[History], back: int = 0) -> LeftOut:
    """Return each user's items but the last, and the last.

    ``back`` leaves out so many more behind the target: 1 is the usual validation set, whose target
    is the item before the test's. Users with fewer than two items left are left out.
    """
    usable = [s[: len(s) - back] for s in sequences if len(s) - back >= 2]
    return LeftOut([s[:-1] for s in usable], [s[-1:] for s in usable])


def last_share(sequences: Sequence[History], share: float) -> LeftOut:
    """Return each user's first items, and the last ``share`` of them, at least one of each."""
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, got {share}")
    cuts = [min(max(1, round(len(s) * (1 - share))), len(s) - 1) for s in sequences]
    return LeftOut(
        [s[:cut] for s, cut in zip(sequences, cuts, strict=True)],
        [s[cut:] for s, cut in zip(sequences, cuts, strict=True)],
    )


class Sides(NamedTuple):
    """Rows to learn from, and rows to be asked for."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def by_time(times: NDArray[np.int64], cut: int) -> Sides:
    """Return the rows before a moment, and those from it on."""
    return Sides(np.flatnonzero(times < cut), np.flatnonzero(times >= cut))


def k_fold(n: int, k: int = 5, seed: int = 0) -> Iterator[Sides]:
    """Yield k splits of n rows that have no time, shuffled; each row is a test's once."""
    for train, test in KFold(k, shuffle=True, random_state=seed).split(np.arange(n)):
        yield Sides(train, test)


def chosen_on_other_folds(
    values: NDArray[np.float64], k: int = 10, repeats: int = 10
) -> NDArray[np.float64]:
    """Return for each case what the choice that is best on the other folds reaches, shape (n,).

    ``values`` (n_choices, n) is what each choice reaches on each case, larger is better; the mean
    over ``repeats`` ways to cut the cases into folds.
    """
    reached = np.zeros(values.shape[1])
    for seed in range(repeats):
        for train, test in k_fold(values.shape[1], k, seed):
            reached[test] += values[values[:, train].mean(axis=1).argmax(), test]
    return reached / repeats
