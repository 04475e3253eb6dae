"""BatchReport: what a stage did with one micro-batch, for the metrics; gathered once per batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.dead_letters import Failure


@dataclass(slots=True)
class BatchReport:
    """Counts and times of one micro-batch; the keys are closed sets (see metrics.py).

    ``event_times_ms`` and ``arrivals_ms`` hold, per output topic, when the cause of each output
    happened and when the broker got it.
    """

    stage: str
    n_events: int
    seconds: dict[str, float] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    event_times_ms: dict[str, list[int]] = field(default_factory=dict)
    arrivals_ms: dict[str, list[int]] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    #: The items of the lists, each as often as it was listed.
    listed: list[str] = field(default_factory=list)
    #: Acts by type, and whether they name the list that they follow.
    acts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    #: Searches by what their best item was found by.
    answers: Counter[str] = field(default_factory=Counter)
    #: Churn risks by band, the band before, and cause.
    bands: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    n_assessed: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    sentiments: Counter[str] = field(default_factory=Counter)
    n_coalesced: int = 0
    n_cold: int = 0
    n_future: int = 0
    row_bytes: list[int] = field(default_factory=list)
    n_trimmed: int = 0
    n_expired: int = 0

    def count(self, topic: str, outcome: str, n: int = 1) -> None:
        if n:
            self.events[topic, outcome] += n

    def published(self, topic: str, event_time_ms: int, arrival_ms: int) -> None:
        """Note an output's cause: when it happened, and when the broker got it."""
        self.event_times_ms.setdefault(topic, []).append(event_time_ms)
        self.arrivals_ms.setdefault(topic, []).append(arrival_ms)


Report = Callable[[BatchReport], None]
