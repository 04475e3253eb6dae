from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import NOW_MS
from fakes import Outbox
from preference_stage import PreferenceStage, new_table, risks

from models.activity import Activity, fold_activity
from models.churn import Assessment
from stream.agents.churn import Churn, ChurnRules
from stream.agents.reports import BatchReport
from stream.agents.work import Work
from stream.core.churn import Thresholds, assessment_window
from stream.core.drafts import user_key
from stream.core.user_rows import from_row, to_row
from stream.core.user_state import Stated, UserState
from stream.engine.commits import Committer, PartitionCommit
from stream.messages import ChurnRisk

ROUND_S = 60.0


class Says:
    """A churn model that says what it is told to, and remembers when it was asked."""

    name = "says"

    def __init__(self) -> None:
        self.probability = 0.5
        self.asked_ms: list[int] = []
        self.n_calls = 0

    def predict(
        self, activities: Sequence[Activity], now_ms: int, horizon_days: float
    ) -> list[Assessment]:
        self.asked_ms += [now_ms] * len(activities)
        self.n_calls += 1
        return [Assessment(self.probability, horizon_days, tuple) for _ in activities]


class Timer:
    """A table of users who do nothing, and the timer that looks at them."""

    def __init__(self, folder: Path, clock: str = "wall", ttl_ms: int = 0) -> None:
        self.table, self.outbox = new_table(folder), Outbox()
        self.committer = Committer(self.table, self.outbox, "user-state")
        self.model = Says()
        self.now_ms, self.monotonic_s, self.n_expired = NOW_MS, 0.0, 0
        thresholds = Thresholds(0.4, 0.7, 0.05)
        rules = ChurnRules(thresholds, 30, ROUND_S, clock, ttl_ms)  # type: ignore[arg-type]
        self.churn = Churn(self.model, self.committer, rules, lambda: self.monotonic_s)

    async def start(self, *users: str, state: UserState | None = None) -> None:
        activity = fold_activity(Activity(), "purchase", NOW_MS, 5.0, 1, None)
        row = to_row(state or UserState(activity=activity))
        await self.committer.hold({0})
        rows: dict[bytes, bytes | None] = {user_key(user): row for user in users}
        await self.committer.commit([PartitionCommit(0, rows, stream_time_ms=NOW_MS - 5000)])
        self.churn.take_over(0, len(users))

    async def tick(self, seconds: float) -> tuple[list[ChurnRisk], int]:
        """Return what is published after so many seconds, and how many users were looked at."""
        self.monotonic_s += seconds
        self.now_ms += round(seconds * 1000)
        before = len(self.outbox.sent)
        work = Work(BatchReport("churn", 0))
        self.churn.assess_slice(work, self.table, 0, self.now_ms)
        await self.committer.commit(work.commits)
        self.n_expired += work.report.n_expired
        return risks(self.outbox.sent[before:]), work.report.n_assessed["timer"]

    async def round(self) -> list[ChurnRisk]:
        """Return what one whole round publishes."""
        found: list[ChurnRisk] = []
        for _ in range(12):
            found += (await self.tick(ROUND_S / 10))[0]
        return found


@pytest.fixture
async def timer(tmp_path: Path) -> Timer:
    return Timer(tmp_path)


async def test_a_silent_users_first_band_is_published_without_a_trigger(timer: Timer) -> None:
    await timer.start("u1")
    [risk] = await timer.round()
    assert (risk.user_id, risk.band, risk.previous_band) == ("u1", "medium", None)
    assert risk.trigger is None
    assert risk.model == "says"


async def test_a_band_that_is_kept_is_published_once(timer: Timer) -> None:
    await timer.start("u1", "u2")
    assert len(await timer.round()) == 2
    assert await timer.round() == []


async def test_a_probability_that_wavers_at_a_border_does_not_flap(timer: Timer) -> None:
    await timer.start("u1")
    published = []
    for probability in [0.69, 0.71, 0.69, 0.74, 0.76, 0.71, 0.66, 0.64, 0.69]:
        timer.model.probability = probability
        published += await timer.round()
    assert [risk.band for risk in published] == ["medium", "high", "medium"]
    assert [risk.previous_band for risk in published] == [None, "medium", "high"]


async def test_ids_differ_while_a_repeat_after_a_crash_has_the_same(timer: Timer) -> None:
    await timer.start("u1")
    first = await timer.round()
    timer.model.probability = 0.9
    second = await timer.round()
    assert first[0].assessment_id != second[0].assessment_id


async def test_one_second_looks_at_a_slice_and_a_round_at_everybody(timer: Timer) -> None:
    users = [f"u{n:03}" for n in range(300)]
    await timer.start(*users)
    seen: list[ChurnRisk] = []
    most = 0
    for _ in range(62):
        found, n = await timer.tick(1.0)
        seen += found
        most = max(most, n)
    assert sorted(risk.user_id for risk in seen) == users
    assert most <= 6


async def test_a_long_pause_is_not_made_up_for_at_once(timer: Timer) -> None:
    await timer.start(*(f"u{n}" for n in range(600)))
    _, n = await timer.tick(100 * ROUND_S)
    assert n <= 11


async def test_the_timer_assesses_as_of_the_beginning_of_the_window(timer: Timer) -> None:
    await timer.start("u1")
    await timer.round()
    windows = {assessment_window(ms, ROUND_S) for ms in timer.model.asked_ms}
    assert set(timer.model.asked_ms) == windows


async def test_by_the_clock_of_the_stream_now_is_the_newest_event(tmp_path: Path) -> None:
    timer = Timer(tmp_path, clock="stream")
    await timer.start("u1")
    timer.now_ms += 10**10
    await timer.round()
    assert set(timer.model.asked_ms) == {assessment_window(NOW_MS - 5000, ROUND_S)}


async def test_who_is_not_to_be_profiled_or_did_nothing_is_not_assessed(timer: Timer) -> None:
    await timer.start("idle", state=UserState())
    activity = fold_activity(Activity(), "purchase", NOW_MS, 5.0, 1, None)
    private = UserState(activity=activity, stated=Stated(personalize=False))
    await timer.committer.commit([PartitionCommit(0, {b"private": to_row(private)})])
    assert await timer.round() == []
    assert timer.model.asked_ms == []


async def test_a_partition_that_was_let_go_of_is_not_looked_at(timer: Timer) -> None:
    await timer.start("u1")
    timer.churn.release([0])
    assert await timer.tick(ROUND_S) == ([], 0)


async def test_only_the_rows_whose_band_changed_are_written(timer: Timer) -> None:
    await timer.start("u1", "u2")
    await timer.round()
    n_sent = len(timer.outbox.sent)
    await timer.round()
    assert len(timer.outbox.sent) == n_sent
    row = timer.table.rows(0, [b"u1"])[0]
    assert row is not None
    assert from_row(row).band == "medium"


@pytest.mark.parametrize(
    ("clock", "n_calls", "as_of_ms"),
    [("wall", 1, [NOW_MS + 1000] * 2), ("stream", 2, [NOW_MS - 7, NOW_MS])],
)
async def test_those_who_act_are_assessed_together_where_it_is_the_same_time(
    tmp_path: Path, clock: str, n_calls: int, as_of_ms: list[int]
) -> None:
    stage, model = PreferenceStage(new_table(tmp_path), Outbox(), clock=clock), Says()
    stage.churn.use(model)
    await stage.start()
    here = stage.act("tea", event_time_ms=NOW_MS - 7)
    there = stage.act("cup", user_id="u2", partition=1, event_time_ms=NOW_MS)
    assert [risk.user_id for risk in risks(await stage(here, there))] == ["u1", "u2"]
    assert (model.n_calls, model.asked_ms) == (n_calls, as_of_ms)


async def test_who_acts_for_the_first_time_is_looked_at_by_the_timer_later(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox())
    await stage.start()
    await stage(stage.act("tea"), stage.act("tea"), stage.act("cup", user_id="u2"))
    stage.monotonic_s += 10 * stage.settings.churn_assess_s
    await stage.stage.assess_silent()
    assert sum(report.n_assessed["timer"] for report in stage.reports) == 2


TTL_MS = 5_000_000


def shopped(at_ms: int = NOW_MS, **fields: object) -> UserState:
    activity = fold_activity(Activity(), "purchase", at_ms, 5.0, 1, None)
    return UserState(activity=activity, **fields)  # type: ignore[arg-type]


async def test_who_is_long_gone_leaves_the_store_and_the_changelog(tmp_path: Path) -> None:
    timer = Timer(tmp_path, ttl_ms=TTL_MS)
    await timer.start("u1", "u2", "u3")
    await timer.round()
    assert timer.n_expired == 0
    timer.now_ms += TTL_MS
    await timer.round()
    assert timer.n_expired == 3
    assert timer.table.rows(0, [b"u1", b"u2", b"u3"]) == [None, None, None]
    last = {output.key: output.value for output in timer.outbox.of("user-state")}
    assert [last[user] for user in (b"u1", b"u2", b"u3")] == [None, None, None]
    await timer.round()
    assert timer.n_expired == 3


async def test_a_row_that_was_touched_since_stays(tmp_path: Path) -> None:
    timer = Timer(tmp_path, ttl_ms=TTL_MS)
    await timer.start("u1", state=shopped(recommended_ms=NOW_MS + TTL_MS))
    timer.now_ms += TTL_MS
    await timer.round()
    assert timer.n_expired == 0
    assert timer.table.rows(0, [b"u1"]) != [None]


async def test_what_the_shop_states_outlives_what_the_user_did(tmp_path: Path) -> None:
    timer = Timer(tmp_path, ttl_ms=TTL_MS)
    stated = Stated(updated_ms=NOW_MS, interests="tea")
    await timer.start("u1", state=shopped(stated=stated, offsets=(5, -1, -1, 2, 2)))
    timer.now_ms += TTL_MS + 120_000
    await timer.round()
    row = timer.table.rows(0, [b"u1"])[0]
    assert row is not None
    assert from_row(row) == UserState(stated=stated, offsets=(5, -1, -1, 2, 2))
    assert timer.n_expired == 1


async def test_a_wish_not_to_be_profiled_does_not_expire(tmp_path: Path) -> None:
    timer = Timer(tmp_path, ttl_ms=TTL_MS)
    await timer.start("u1", state=UserState(stated=Stated(updated_ms=1, personalize=False)))
    timer.now_ms += 100 * TTL_MS
    await timer.round()
    row = timer.table.rows(0, [b"u1"])[0]
    assert row is not None
    assert not from_row(row).stated.personalize


async def test_without_a_limit_nobody_expires(timer: Timer) -> None:
    await timer.start("u1")
    timer.now_ms += 10**13
    await timer.round()
    assert timer.n_expired == 0
    assert timer.table.rows(0, [b"u1"]) != [None]
