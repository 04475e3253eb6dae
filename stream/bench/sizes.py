"""How large each measurement is; QUICK ones only show that it runs. Loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is caught up in a round: ``events`` by ``users`` on ``items``."""

    events: int = 50_000
    users: int = 5_000
    items: int = 10_000
    rounds: int = 5


@dataclass(frozen=True, slots=True)
class Mix:
    """As Backlog; the plain loop takes windows of at most so many events."""

    events: int = 50_000
    users: int = 5_000
    items: int = 100_000
    windows: tuple[int, ...] = (1_000, 20_000)
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Latency:
    """``warm_up_s`` of ``seconds`` are not counted: the first acts find cold code and caches.

    Of ``rate`` acts a second at most ``searches`` are searches.
    """

    rate: float = 200.0
    searches: float = 20.0
    users: int = 2_000
    items: int = 10_000
    seconds: float = 40.0
    warm_up_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Retrieval:
    """``queries`` go in batches, ``singles`` one by one; ``titles`` are encoded, mixed to ``n``.

    A worker searches with one thread.
    """

    n: int = 1_000_000
    dim: int = 384
    queries: int = 512
    singles: int = 100
    titles: int = 5_000
    threads: int = 1
    rounds: int = 5


@dataclass(frozen=True, slots=True)
class Encoder:
    short_texts: int = 1_024
    long_texts: int = 256
    singles: int = 50
    rounds: int = 5


@dataclass(frozen=True, slots=True)
class State:
    users: int = 2_000
    acts: int = 60_000
    items: int = 2_000


@dataclass(frozen=True, slots=True)
class Growth:
    """One of the three grows while the others are as the ``*_else`` say."""

    users: tuple[int, ...] = (1_000, 10_000, 100_000)
    items: tuple[int, ...] = (1_000, 10_000, 100_000)
    partitions: tuple[int, ...] = (1, 4, 16)
    users_else: int = 10_000
    items_else: int = 10_000
    partitions_else: int = 4
    events: int = 10_000
    rounds: int = 3


Size = Backlog | Mix | Latency | Retrieval | Encoder | State | Growth

#: In the order in which `all` measures them.
FULL: Final[dict[str, Size]] = {
    "ingest": Backlog(),
    "catch_up": Backlog(events=1_000_000, users=100_000, rounds=1),
    "mix": Mix(),
    "latency": Latency(),
    "retrieval": Retrieval(),
    "encoder": Encoder(),
    "state": State(),
    "growth": Growth(),
    "workers": Backlog(rounds=3),
}
QUICK: Final[dict[str, Size]] = {
    "ingest": Backlog(events=2_000, users=200, items=200, rounds=1),
    "catch_up": Backlog(events=2_000, users=400, items=200, rounds=1),
    "mix": Mix(events=2_000, users=200, items=200, windows=(500,), rounds=1),
    "latency": Latency(rate=20, users=64, items=88, seconds=4, warm_up_s=1),
    "retrieval": Retrieval(n=6_000, dim=64, queries=64, singles=10, titles=64, rounds=1),
    "encoder": Encoder(short_texts=32, long_texts=16, singles=3, rounds=1),
    "state": State(users=64, acts=600, items=88),
    "growth": Growth((50, 100), (100, 200), (1, 2), 50, 100, 1, events=2_000, rounds=1),
    "workers": Backlog(events=2_000, users=200, items=200, rounds=1),
}
#: These cannot be measured without a broker.
ON_KAFKA: Final = ("ingest", "catch_up", "mix", "latency", "workers")
