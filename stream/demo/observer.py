"""An outside consumer: what was sent and what came back -> latency, hit rates, losses.

It reads the published messages as any consumer would, by their JSON alone, and judges the lists
by what the simulation knows of the shoppers, which the program never sees.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.demo.shoppers import Act, Crowd

# Acts of one shopper on two topics may be folded in either order when they lie this close.
_REORDERED_MS = 1000.0
# The list follows a change of taste once half of it is of the new one.
_FOLLOWED = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """A recommendation beside the act that caused it; ``items`` as they were published."""

    act: Act
    items: list[dict[str, Any]]
    cold_start: bool
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Assessed:
    """A churn risk as it was published."""

    user_id: str
    probability: float
    band: str
    previous_band: str | None
    drivers: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """What an outside consumer has seen of the whole run.

    Hit rates are shares of the first ``k`` items of a list that fit the shopper's taste of that
    moment; ``popular_hit_rate`` is that of the most popular items at the same moments. Latencies
    are from the send of an act to the receipt of its recommendation, None while there is none;
    ``text_p50_ms`` and ``text_p99_ms`` are those of searches and reviews alone, which BERT reads.
    ``rankers`` and ``churn_models`` made the lists and the churn risks.
    """

    k: int
    n_events: int
    n_recommendations: int
    n_unanswered: int
    n_assessed: int
    bands: dict[str, int]
    dead_letters: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    text_p50_ms: float | None
    text_p99_ms: float | None
    hit_rate: float | None
    popular_hit_rate: float | None
    n_switched: int
    n_followed: int
    acts_to_follow: float | None
    rankers: frozenset[str]
    churn_models: frozenset[str]

    @property
    def n_dead_letters(self) -> int:
        return sum(self.dead_letters.values())


def losses(report: Report, n_poison: int) -> list[str]:
    """Return what is wrong with a run, a line each: nothing came, or something was lost."""
    lines: list[str] = []
    if not report.n_recommendations:
        lines.append("no recommendation came")
    if report.n_unanswered:
        lines.append(f"{report.n_unanswered} acts have no recommendation")
    if report.n_dead_letters != n_poison:
        reasons = "; ".join(report.dead_letters) or "none"
        lines.append(f"expected {n_poison} dead letters, got {report.n_dead_letters}: {reasons}")
    return lines


class Observer:
    """Matches each recommendation to its act, and keeps the score. Times are monotonic ms."""

    def __init__(self, crowd: Crowd, k: int = 10) -> None:
        self._crowd = crowd
        self._k = k
        self._sent: dict[str, _Sent] = {}
        self._waiting: defaultdict[str, list[_Sent]] = defaultdict(list)
        self._popular = _Popular()
        self._latencies_ms: dict[bool, list[float]] = {True: [], False: []}
        self._hits: list[float] = []
        self._popular_hits: list[float] = []
        self._followed: dict[str, int | None] = {}
        self._since_switch: Counter[str] = Counter()
        self._ids: set[str] = set()
        self._bands: dict[str, str] = {}
        self._dead: Counter[str] = Counter()
        self._rankers, self._churn_models = set[str](), set[str]()
        self._n_recommendations = self._n_assessed = 0

    def knows(self, user_id: str) -> bool:
        """Say whether a user is one of the simulation's."""
        return user_id in self._crowd.shoppers

    def title(self, item_id: str) -> str:
        """Return the title of an item, or its id where the shop does not sell it."""
        return self._crowd.shop.title(item_id)

    def past(self, act: Act) -> None:
        """Note an act of the time before the run: it counts for what is popular, no more."""
        self._popular.add(act)

    def sent(self, act: Act, sent_ms: float) -> None:
        """Note an act that was sent, and that is to be answered."""
        self._popular.add(act)
        if self._has_switched(act):
            self._since_switch[act.user_id] += 1
        note = _Sent(act, sent_ms, self._since_switch[act.user_id])
        self._sent[act.event_id] = note
        self._waiting[act.user_id].append(note)

    def recommended(self, raw: bytes | None, received_ms: float) -> Seen | None:
        """Take a message of ``recommendations``; return it beside its act.

        None for a tombstone, for a repeat, and for what no act of this run has caused.
        """
        message = self._first_time(raw, "recommendation_id")
        note = self._sent.get(message["trigger"]["event_id"]) if message else None
        if message is None or note is None:
            return None
        self._n_recommendations += 1
        self._rankers.add(message["model"]["ranker"])
        self._answer(note, received_ms)
        latency_ms = received_ms - note.sent_ms
        self._latencies_ms[note.act.topic != "clickstream"].append(latency_ms)
        self._judge(note, [item["item_id"] for item in message["items"]])
        return Seen(note.act, message["items"], message["cold_start"], latency_ms)

    def assessed(self, raw: bytes | None) -> Assessed | None:
        """Take a message of ``churn-risk``; None for a tombstone and for a repeat."""
        message = self._first_time(raw, "assessment_id")
        if message is None:
            return None
        self._n_assessed += 1
        self._churn_models.add(message["model"])
        self._bands[message["user_id"]] = message["band"]
        return Assessed(
            message["user_id"],
            message["probability"],
            message["band"],
            message.get("previous_band"),
            message["drivers"],
        )

    def dead_letter(self, headers: Sequence[tuple[str, bytes]]) -> str:
        """Take the headers of a message of ``dead-letters``; return topic and reason."""
        named = dict(headers)
        topic, reason = named.get("dlq.original.topic"), named.get("dlq.error.message")
        text = f"{(topic or b'?').decode()}: {(reason or b'no reason given').decode()}"
        self._dead[text] += 1
        return text

    def unanswered(self) -> list[Act]:
        """Return the acts without a recommendation as of that act or a later one."""
        return [note.act for notes in self._waiting.values() for note in notes]

    def report(self) -> Report:
        """Return the score so far."""
        of_text = self._latencies_ms[True]
        latencies = of_text + self._latencies_ms[False]
        followed = [n for n in self._followed.values() if n is not None]
        return Report(
            k=self._k,
            n_events=len(self._sent),
            n_recommendations=self._n_recommendations,
            n_unanswered=len(self.unanswered()),
            n_assessed=self._n_assessed,
            bands=dict(Counter(self._bands.values())),
            dead_letters=dict(self._dead),
            p50_ms=_percentile(latencies, 50),
            p99_ms=_percentile(latencies, 99),
            text_p50_ms=_percentile(of_text, 50),
            text_p99_ms=_percentile(of_text, 99),
            hit_rate=float(np.mean(self._hits)) if self._hits else None,
            popular_hit_rate=float(np.mean(self._popular_hits)) if self._hits else None,
            n_switched=len(self._followed),
            n_followed=len(followed),
            acts_to_follow=float(np.median(followed)) if followed else None,
            rankers=frozenset(self._rankers),
            churn_models=frozenset(self._churn_models),
        )

    def _first_time(self, raw: bytes | None, id_field: str) -> dict[str, Any] | None:
        if raw is None:
            return None
        message: dict[str, Any] = msgspec.json.decode(raw)
        if message[id_field] in self._ids:
            return None
        self._ids.add(message[id_field])
        return message

    def _answer(self, trigger: _Sent, received_ms: float) -> None:
        user_id = trigger.act.user_id
        self._waiting[user_id] = [
            note for note in self._waiting[user_id] if not note.answered_by(trigger, received_ms)
        ]

    def _judge(self, note: _Sent, item_ids: list[str]) -> None:
        user_id, at_ms = note.act.user_id, _time_ms(note.act)
        share = self._share(user_id, item_ids[: self._k], at_ms)
        self._hits.append(share)
        popular = self._popular.top(self._k, user_id)
        self._popular_hits.append(self._share(user_id, popular, at_ms))
        if note.since_switch and self._followed.get(user_id) is None:
            self._followed[user_id] = note.since_switch if share >= _FOLLOWED else None

    def _share(self, user_id: str, item_ids: list[str], at_ms: int) -> float:
        hits = [self._crowd.affinity(user_id, item_id, at_ms) for item_id in item_ids]
        return float(np.mean(hits)) if hits else 0.0

    def _has_switched(self, act: Act) -> bool:
        shopper = self._crowd.shoppers.get(act.user_id)
        switch_ms = shopper.switch_ms if shopper else None
        return switch_ms is not None and _time_ms(act) >= switch_ms


@dataclass(frozen=True, slots=True)
class _Sent:
    """An act that was sent, as the ``since_switch``-th of its shopper's new taste (0 = old)."""

    act: Act
    sent_ms: float
    since_switch: int

    def answered_by(self, trigger: _Sent, received_ms: float) -> bool:
        """Say whether a list that another act of the shopper caused reflects this one too.

        On one topic the later act stands for the earlier. Across topics the order of arrival is
        open, so that acts close together may stand for each other.
        """
        if self.act.topic == trigger.act.topic:
            return self.sent_ms <= trigger.sent_ms
        return self.sent_ms <= min(trigger.sent_ms + _REORDERED_MS, received_ms)


class _Popular:
    """The popularity baseline: the items most acted on so far, the same for everyone.

    It is as fair as can be: nobody is shown what they have bought or disliked.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._item_ids: list[str] = []
        self._counts: NDArray[np.int64] = np.zeros(1024, np.int64)
        self._exclude: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, act: Act) -> None:
        kind, item_id = getattr(act.event, "type", None), getattr(act.event, "item_id", None)
        if kind in ("purchase", "dislike"):
            self._exclude[act.user_id].add(str(item_id))
        if kind is not None and kind != "dislike":
            row = self._row(str(item_id))
            self._counts[row] += 1

    def _row(self, item_id: str) -> int:
        row = self._rows.setdefault(item_id, len(self._item_ids))
        if row == len(self._item_ids):
            self._item_ids.append(item_id)
            if row == len(self._counts):
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        return row

    def top(self, k: int, user_id: str) -> list[str]:
        # Asked for each list: sorting all items anew took a third of the demo's time.
        exclude = self._exclude[user_id]
        n = min(k + len(exclude), len(self._item_ids))
        falling = -self._counts[: len(self._item_ids)]
        best = np.argpartition(falling, n - 1)[:n] if n else np.zeros(0, np.int64)
        best = best[np.lexsort((best, falling[best]))]
        ranked = (self._item_ids[row] for row in best.tolist())
        return [item_id for item_id in ranked if item_id not in exclude][:k]


def _percentile(values: list[float], q: float) -> float | None:
    return float(np.percentile(values, q)) if values else None


def _time_ms(act: Act) -> int:
    return int(getattr(act.event, "event_time_ms", 0))
