"""Vitals: what worker processes take over their lives, and what of it only ever grows.

Under faults a process lives for minutes, so growth is looked for in three ways, each with room of
its own. Steady: the usual slope over a few seconds, which a step, as of a backlog, leaves as it is.
Overall: from one end of the longest life to the other, steps and all. Between: at the same age,
from the first lives to the last, those left out in which users' rows still grew.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np

Quantity = Literal["rss_mib", "handles", "threads"]
Kind = Literal["steady", "overall", "between"]
#: A process that starts fills its caches and takes its partitions; what it takes then is no leak.
WARM_UP_S = 20.0
#: Lives are compared at this age: those that end sooner tell nothing.
SETTLED_S = (WARM_UP_S, WARM_UP_S + 15)
#: Growth within a life is a slope; from less than this it would be noise.
SHORTEST_S = 25.0
#: Until the rows of a load's users are as long as they get, each life has more to hold than the one
#: before. Lives begun later tell leaks from that, where there are enough of them.
FILLING_S = 600.0
#: Points further apart than this may have a fault between them.
NEAR_S = 15.0
#: Fewer lives are not enough for the median of a third of them.
FEWEST_LIVES = 9
#: Pairs of samples grow with the square of these.
MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment, in seconds since the watch began; lag is None if unknown."""

    at_s: float
    worker: str
    process: str
    pid: int
    rss_mib: float
    handles: int
    threads: int
    lag: int | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How much a quantity may grow without being a leak: once, and for each minute looked at."""

    once: float
    a_minute: float


#: An outage's backlog is worked off in large batches, and what they took is not given back: that
#: took 45 MiB in a worker of 130. A steady leak has no such excuse.
ROOM: Mapping[Kind, Mapping[Quantity, Room]] = {
    "steady": {
        "rss_mib": Room(once=16, a_minute=6),
        "handles": Room(once=12, a_minute=1),
        "threads": Room(once=6, a_minute=0.5),
    },
    "overall": {
        "rss_mib": Room(once=96, a_minute=6),
        "handles": Room(once=16, a_minute=1),
        "threads": Room(once=6, a_minute=0.5),
    },
    "between": {
        "rss_mib": Room(once=24, a_minute=0),
        "handles": Room(once=12, a_minute=0),
        "threads": Room(once=6, a_minute=0),
    },
}


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much a process grew: within ``over_s`` of one life, or (0) from life to life."""

    worker: str
    process: str
    quantity: Quantity
    kind: Kind
    by: float
    over_s: float = 0.0

    @property
    def is_leak(self) -> bool:
        room = ROOM[self.kind][self.quantity]
        return self.by > room.once + room.a_minute * self.over_s / 60

    def __str__(self) -> str:
        where = f"{self.kind} within {self.over_s:.0f} s" if self.over_s else "from life to life"
        return f"{self.process} of {self.worker}: {self.quantity} {self.by:+.1f} {where}"


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Return how much each process grew in each quantity, as far as it lived long enough."""
    return [
        growth
        for _, lives in sorted(_lives(samples).items())
        for quantity in ROOM["steady"]
        for growth in (*_within(lives, quantity), *_between(lives, quantity))
    ]


def leaks(samples: Sequence[Sample]) -> list[str]:
    """Return in words what grew by more than it has room for."""
    return [str(growth) for growth in growths(samples) if growth.is_leak]


def _lives(samples: Sequence[Sample]) -> dict[tuple[str, str], list[list[Sample]]]:
    """Return the samples of each process by its lives, in the order in which these began."""
    lives: dict[tuple[str, str], dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        lives[sample.worker, sample.process][sample.pid].append(sample)
    return {name: list(by_pid.values()) for name, by_pid in lives.items()}


def _within(lives: Sequence[Sequence[Sample]], quantity: Quantity) -> Iterator[Growth]:
    """Yield the growths within the longest life, after its warm-up, if that is long enough."""
    settled = [[s for s in life if s.at_s - life[0].at_s >= WARM_UP_S] for life in lives]
    longest = max(settled, key=lambda life: life[-1].at_s - life[0].at_s if life else 0.0)
    if not longest or (over_s := longest[-1].at_s - longest[0].at_s) < SHORTEST_S:
        return
    worker, process = longest[0].worker, longest[0].process
    thinned = longest[:: 1 + len(longest) // MOST_POINTS]
    kinds: tuple[tuple[Kind, Sequence[Sample], float], ...] = (
        ("steady", longest, NEAR_S),
        ("overall", thinned, over_s),
    )
    for kind, of, near_s in kinds:
        values = [getattr(sample, quantity) for sample in of]
        by = over_s * slope([sample.at_s for sample in of], values, near_s)
        yield Growth(worker, process, quantity, kind, by, over_s)


def _between(lives: Sequence[Sequence[Sample]], quantity: Quantity) -> Iterator[Growth]:
    """Yield by how much more the last third of the lives takes than the first, at the same age."""
    youngest_s, oldest_s = SETTLED_S
    found = [
        (life[0].at_s, median(getattr(sample, quantity) for sample in settled))
        for life in lives
        if life[-1].at_s - life[0].at_s >= oldest_s
        and (settled := [s for s in life if youngest_s <= s.at_s - life[0].at_s <= oldest_s])
    ]
    began_s = lives[0][0].at_s
    levels = [level for at_s, level in found if at_s - began_s >= FILLING_S]
    if len(levels) < FEWEST_LIVES:
        levels = [level for _, level in found]
    if len(levels) >= FEWEST_LIVES:
        third = len(levels) // 3
        by = median(levels[-third:]) - median(levels[:third])
        yield Growth(lives[0][0].worker, lives[0][0].process, quantity, "between", by)


def slope(times_s: Sequence[float], values: Sequence[float], near_s: float) -> float:
    """Return the median of the slopes, a second, between pairs of points at most so far apart.

    A few points that are far off, as during a fault, do not bend it (Theil and Sen); where only
    near points are paired, neither does a step.
    """
    x, y = np.asarray(times_s, float), np.asarray(values, float)
    rises = []
    for apart in range(1, len(x)):
        near = (seconds := x[apart:] - x[:-apart]) <= near_s
        if not near.any():
            break
        rises.append((y[apart:] - y[:-apart])[near] / seconds[near])
    return float(np.median(np.concatenate(rises)))


def slots(samples: Sequence[Sample], seconds: float) -> Iterator[tuple[float, list[Sample]]]:
    """Yield the samples by spans of some seconds, each with its beginning."""
    for number, of_slot in itertools.groupby(samples, lambda s: int(s.at_s // seconds)):
        yield number * seconds, list(of_slot)
