"""Churn: when a risk is published, under which id, and which silent users a timer looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TypeVar

from models.activity import Activity
from models.churn import Assessment
from stream.messages import Band, ChurnRisk, Driver, Trigger, output_id

Row = TypeVar("Row")

# --- what is published ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the bands meet; a band is left only ``hysteresis`` beyond its border."""

    low: float
    high: float
    hysteresis: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"expected 0 <= churn_low <= churn_high <= 1, got {self.low} and {self.high}"
            )
        if self.hysteresis < 0:
            raise ValueError(f"expected churn_hysteresis >= 0, got {self.hysteresis}")


@dataclass(frozen=True, slots=True)
class BandChange:
    band: Band
    previous: Band | None


def decide(probability: float, previous: Band | None, thresholds: Thresholds) -> BandChange | None:
    """Return the change to publish: the first band, or another one; None while it is kept."""
    margin = 0.0 if previous is None else thresholds.hysteresis
    # Borders above the previous band move up, those below it down.
    low = thresholds.low + (margin if previous == "low" else -margin)
    high = thresholds.high + (-margin if previous == "high" else margin)
    band: Band = "low" if probability < low else "high" if probability > high else "medium"
    return None if band == previous else BandChange(band, previous)


def assessment_window(now_ms: int, assess_s: float) -> int:
    """Return the start of the window that holds now_ms, epoch ms.

    The timer assesses as of this moment, not of its own: a silent user's assessment then depends
    on the stored state and the window alone, and a repeat after a crash has the same bytes.
    """
    length_ms = _window_ms(assess_s)
    return now_ms // length_ms * length_ms


def next_assessment_due(assessed_ms: int, assess_s: float) -> int:
    """Return when a user assessed at assessed_ms is due again: the start of the next window."""
    return assessment_window(assessed_ms, assess_s) + _window_ms(assess_s)


def _window_ms(assess_s: float) -> int:
    return max(int(assess_s * 1000), 1)


@dataclass(frozen=True, slots=True)
class AssessedUser:
    """One user's assessment: of which state, as of when, by which model."""

    user_id: str
    activity: Activity
    assessment: Assessment
    assessed_ms: int
    model: str


def churn_risk(
    assessed: AssessedUser, change: BandChange, assess_s: float, trigger: Trigger | None = None
) -> ChurnRisk:
    """Return the message of a band change; ``trigger`` is None when silence caused it."""
    return ChurnRisk(
        assessment_id=_assessment_id(assessed, change, assess_s, trigger),
        user_id=assessed.user_id,
        assessed_ms=assessed.assessed_ms,
        probability=round(assessed.assessment.probability, 6),
        horizon_days=assessed.assessment.horizon_days,
        band=change.band,
        previous_band=change.previous,
        drivers=[
            Driver(feature=feature, value=round(value, 6), contribution=round(contribution, 6))
            for feature, value, contribution in assessed.assessment.drivers
        ],
        trigger=trigger,
        model=assessed.model,
    )


def _assessment_id(
    assessed: AssessedUser, change: BandChange, assess_s: float, trigger: Trigger | None
) -> str:
    """Derive the id from user, window and cause.

    A band can change more than once in a window, so the window is not enough: an event's place
    tells event-caused changes apart; for the silent, the band left, the state assessed and the
    model do, which may be another's within a window.
    """
    cause: tuple[str | int, ...]
    if trigger is not None:
        cause = (trigger.topic, trigger.partition, trigger.offset)
    else:
        activity = assessed.activity
        state = (change.previous or "", activity.last_ms, activity.n_acts)
        cause = ("silence", *state, assessed.model)
    window_ms = assessment_window(assessed.assessed_ms, assess_s)
    return output_id("churn", assessed.user_id, window_ms, *cause)


# --- the silent ----------------------------------------------------------------------------------

#: scan(after_key, limit): the rows after a key (None: from the start) in key order.
Scan = Callable[[bytes | None, int], Sequence[tuple[bytes, Row]]]


@dataclass(frozen=True, slots=True)
class SilenceSchedule:
    """Spreads the users of one partition over ``assess_s``, a slice every ``tick_s``.

    It walks the keys in order, round and round. While ticks are on time and the number of users
    stands still, each is visited at least once per ``assess_s``; after a delay it catches up
    without exceeding ``largest_slice``. ``cursor`` is the last key visited: an owner that
    restarts more often than ``assess_s`` should keep it, or the last keys are never reached.
    """

    assess_s: float
    tick_s: float
    cursor: bytes | None = None
    # Visits due but not made: a fraction of one, more after a delay.
    owed: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.tick_s <= self.assess_s:
            raise ValueError(
                f"expected 0 < tick_s <= assess_s, got {self.tick_s} and {self.assess_s}"
            )

    def largest_slice(self, n_users: int) -> int:
        """Return how many users one tick visits at most."""
        return min(ceil(n_users * self.tick_s / self.assess_s) + 1, n_users)


def next_slice(
    schedule: SilenceSchedule, n_users: int, elapsed_s: float, scan: Scan[Row]
) -> tuple[list[tuple[bytes, Row]], SilenceSchedule]:
    """Return the rows to assess now and the schedule after it; at most two scans.

    ``elapsed_s`` is the time since the previous call, by a monotonic clock. No row comes twice in
    one slice.
    """
    # One visit more than users per round pays for visits being whole and made at ticks only.
    owed = schedule.owed + (n_users + 1) * max(elapsed_s, 0.0) / schedule.assess_s
    owed = min(owed, n_users + 1.0)
    # Sums of fractions must not miss a whole number by their rounding.
    n_due = min(int(owed + 1e-9), schedule.largest_slice(n_users))
    if n_due == 0:
        return [], replace(schedule, owed=owed)
    rows = list(scan(schedule.cursor, n_due))
    if len(rows) < n_due and schedule.cursor is not None:
        seen = {key for key, _ in rows}
        rows += [row for row in scan(None, n_due - len(rows)) if row[0] not in seen]
    cursor = rows[-1][0] if rows else None
    return rows, replace(schedule, cursor=cursor, owed=owed - n_due)
