"""Sides that take turns, A B A B, and what is said of their values: median, spread, ratio.

On a machine that is shared or warms up, one minute is not like the next. Sides that are measured
in turn see the same minutes, and a ratio is taken between neighbours in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

#: Told which side begins its turn, how many turns are over, and how many there are.
OnTurn = Callable[[str, int, int], None]


class BenchFailed(RuntimeError):
    """A measurement that cannot be made here, or whose result would be none."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one side, one a round, in the order in which they were measured."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> float:
        """Return how far the values lie apart, largest to smallest, as a share of the median."""
        return (max(self.values) - min(self.values)) / abs(self.median) if self.median else 0.0

    def over(self, other: Sample) -> Sample:
        """Return this side's values as multiples of the other's in the same round."""
        return Sample(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


class Values:
    """Gathers the values of every side, turn by turn."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, side: str, value: float) -> None:
        """Note a value; raise BenchFailed unless it is above zero, as all we measure is."""
        if not value > 0:
            raise BenchFailed(f"{side}: measured {value}, which is no speed: a larger size is due")
        self._values.setdefault(side, []).append(value)

    def __getitem__(self, side: str) -> Sample:
        return Sample(tuple(self._values[side]))


def turns(
    sides: Sequence[str], rounds: int, on_turn: OnTurn = lambda *_: None
) -> Iterator[tuple[str, int]]:
    """Yield (side, round) for every side's turn in every round."""
    n_turns = rounds * len(sides)
    for number in range(n_turns):
        side = sides[number % len(sides)]
        on_turn(side, number, n_turns)
        yield side, number // len(sides)
    on_turn("", n_turns, n_turns)
