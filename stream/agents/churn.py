"""user-state, and its silence -> churn-risk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from models.activity import Activity
from models.churn import ChurnModel
from stream.agents.work import Work
from stream.core.churn import (
    AssessedUser,
    SilenceSchedule,
    Thresholds,
    assessment_window,
    churn_risk,
    decide,
    next_slice,
)
from stream.core.drafts import UserDraft, user_key
from stream.core.kept import read_kept
from stream.core.user_state import is_long_gone
from stream.engine.commits import Committer, Effect
from stream.engine.table import PartitionTable
from stream.messages import Trigger, to_message
from stream.topics import CHURN_RISK

#: The timer's step: each takes assess_s / TICK_S of the users.
TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class ChurnRules:
    """The settings of churn; ``clock`` says what the timer calls now (see the setting)."""

    thresholds: Thresholds
    horizon_days: float
    assess_s: float
    clock: Literal["wall", "stream"]
    #: Rows untouched for so long are removed; 0 = never.
    ttl_ms: int = 0


@dataclass(slots=True)
class _Walk:
    """Where the timer is in a partition; ``n_users`` is kept up with the rows."""

    schedule: SilenceSchedule
    last_s: float
    n_users: int = field(default=0)


class Churn:
    """Assesses those who act, at once, and everybody else, a slice at a time."""

    def __init__(
        self,
        model: ChurnModel,
        committer: Committer,
        rules: ChurnRules,
        monotonic: Callable[[], float],
    ) -> None:
        self._model = model
        self._committer = committer
        self._rules = rules
        self._monotonic = monotonic
        self._walks: dict[int, _Walk] = {}

    def use(self, model: ChurnModel) -> None:
        """Assess by another model from now on."""
        self._model = model

    def take_over(self, partition: int, n_users: int) -> None:
        """Begin the timer's walk through a partition of ``n_users`` rows."""
        tick_s = min(TICK_S, self._rules.assess_s)
        schedule = SilenceSchedule(assess_s=self._rules.assess_s, tick_s=tick_s)
        self._walks[partition] = _Walk(schedule, self._monotonic(), n_users)

    def release(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._walks.pop(partition, None)

    def assess_active(self, work: Work, wall_ms: int) -> None:
        """Assess the users whose events were folded."""
        times: dict[int, int] = {}
        # Together, those of all partitions: the model takes as long for one user as for ten.
        by_time: dict[int, list[UserDraft]] = {}
        for draft in work.drafts:
            if self._trigger(draft) is None or not draft.publishable():
                continue
            partition = draft.partition
            if partition in self._walks:
                self._walks[partition].n_users += draft.is_new
            if partition not in times:
                newest_ms = work.commit(partition).stream_time_ms
                times[partition] = self.now(partition, wall_ms, newest_ms)
            by_time.setdefault(times[partition], []).append(draft)
        for now_ms, drafts in by_time.items():
            self._assess(drafts, work, now_ms, "event")

    def assess_slice(self, work: Work, table: PartitionTable, partition: int, wall_ms: int) -> None:
        """Assess the next slice of a partition, as of the beginning of the assessment window."""
        walk = self._walks.get(partition)
        if walk is None:
            return
        now_s = self._monotonic()
        rows, walk.schedule = next_slice(
            walk.schedule,
            walk.n_users,
            now_s - walk.last_s,
            lambda after, limit: table.scan(partition, after or b"", limit),
        )
        walk.last_s = now_s
        drafts = [
            UserDraft.load(key.decode(), partition, read_kept(row), None) for key, row in rows
        ]
        for draft in drafts:
            work.add(draft)
        now_ms = assessment_window(self.now(partition, wall_ms), self._rules.assess_s)
        self._assess([d for d in drafts if d.publishable()], work, now_ms, "timer")
        walk.n_users -= self._expire(drafts, work, now_ms)

    def _expire(self, drafts: Sequence[UserDraft], work: Work, now_ms: int) -> int:
        """Forget the users long gone; return how many rows went altogether."""
        if not self._rules.ttl_ms:
            return 0
        gone = [d for d in drafts if is_long_gone(d.state, now_ms, self._rules.ttl_ms)]
        for draft in gone:
            draft.expire()
        work.report.n_expired += len(gone)
        return sum(None in draft.rows().values() for draft in gone)

    @staticmethod
    def _trigger(draft: UserDraft) -> Trigger | None:
        return draft.trigger or draft.covered_trigger

    def now(self, partition: int, wall_ms: int, newest_ms: int = 0) -> int:
        """Return the time of a partition: the wall clock's, or that of its newest event."""
        if self._rules.clock == "wall":
            return wall_ms
        return max(self._committer.stream_time_ms(partition), newest_ms)

    def _assess(
        self,
        drafts: Sequence[UserDraft],
        work: Work,
        now_ms: int,
        cause: Literal["event", "timer"],
    ) -> None:
        known = [(draft, draft.activity) for draft in drafts]
        drafts = [draft for draft, activity in known if activity is not None]
        activities: list[Activity] = [activity for _, activity in known if activity is not None]
        assessments = self._model.predict(activities, now_ms, self._rules.horizon_days)
        work.report.n_assessed[cause] += len(drafts)
        for draft, activity, assessment in zip(drafts, activities, assessments, strict=True):
            change = decide(assessment.probability, draft.band, self._rules.thresholds)
            if change is None:
                continue
            draft.note_band(change.band)
            trigger = self._trigger(draft)
            assessed = AssessedUser(draft.user_id, activity, assessment, now_ms, self._model.name)
            risk = churn_risk(assessed, change, self._rules.assess_s, trigger)
            if self._committer.was_sent(draft.partition, risk.assessment_id):
                continue
            work.commit(draft.partition).effects.append(
                Effect(
                    risk.assessment_id, CHURN_RISK.name, user_key(draft.user_id), to_message(risk)
                )
            )
            work.report.bands[risk.band, risk.previous_band or "none", cause] += 1
            if trigger is not None:
                work.report.published(
                    CHURN_RISK.name, trigger.event_time_ms, draft.arrival_ms(trigger)
                )
