"""Another model in the place of the one in use: between two batches, and never in a repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from builders import NOW_MS
from fakes import Killed, LastItemModel, Outbox
from preference_stage import PreferenceStage, new_table, recommendations, risks

from models.activity import Activity
from models.churn import Assessment, BaselineChurn
from models.item_index import ExactIndex
from models.learnt_items import LearntItems
from models.recommender import Recommender
from stream.delivery import Output

DAY_MS = 86_400_000


class Churning(BaselineChurn):
    """A model that says the same of everybody."""

    def __init__(self, name: str, probability: float) -> None:
        super().__init__()
        self.name = name
        self._probability = probability

    def predict(
        self, activities: Sequence[Activity], now_ms: int, horizon_days: float
    ) -> list[Assessment]:
        return [Assessment(self._probability, horizon_days, lambda: ()) for _ in activities]


async def prepared(stage: PreferenceStage, name: str) -> Callable[[], None]:
    """Do what the tier does once a user model and a churn model have been loaded; return the
    change that is left to do."""
    model = LastItemModel(stage.encoder.dim)
    model.name = name
    learnt = LearntItems(model, lambda _: ExactIndex(model.dim))
    await asyncio.to_thread(stage.catalogue.learn, learnt)
    recommender = Recommender(stage.catalogue, n_candidates=20, user_model=model)

    def change() -> None:
        stage.catalogue.adopt(learnt)
        stage.recommending.use(recommender)
        stage.churn.use(Churning(name, 0.5))

    return change


async def swap(stage: PreferenceStage, name: str) -> None:
    await stage.stage.between_batches(await prepared(stage, name))


def rankers(outputs: list[Output]) -> list[str]:
    return [r.model.ranker for r in recommendations(outputs)]


async def test_lists_and_risks_name_the_model_that_made_them(stage: PreferenceStage) -> None:
    before = await stage(stage.act("boots"))
    await swap(stage, "new")
    stage.now_ms += 1000
    after = await stage(stage.act("tea"), stage.act("tea", user_id="u2"))
    assert (rankers(before), rankers(after)) == (["hybrid-1"], ["hybrid-1+new"] * 2)
    assert [r.model for r in risks(before)] == ["churn-baseline-1"]
    assert {r.model for r in risks(after)} == {"new"}
    (first,), (second, _) = recommendations(before), recommendations(after)
    assert first.model.index_version != second.model.index_version


async def test_a_batch_ends_by_the_model_that_it_began_with(stage: PreferenceStage) -> None:
    change = await prepared(stage, "new")
    # Enough of them that the loop is given a breath between two slices of lists.
    acts = [stage.act("boots", user_id=f"u{n}") for n in range(60)]
    running = asyncio.create_task(stage(*acts))
    await asyncio.sleep(0)
    assert not running.done()
    await stage.stage.between_batches(change)
    # It waited for all of it, though it was asked for at the beginning.
    sent = await running
    assert (len(rankers(sent)), set(rankers(sent))) == (60, {"hybrid-1"})
    assert rankers(await stage(stage.act("tea", user_id="late"))) == ["hybrid-1+new"]


@pytest.mark.parametrize("cut", range(0, 14))
async def test_a_crash_across_a_swap_repeats_the_bytes_of_the_old_model(
    tmp_path: Path, cut: int
) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), min_interval_ms=0)
    stage.stock()
    await stage.start()
    batches = [
        [stage.act("boots", "purchase", price=10.0)],
        [stage.searched("green tea"), stage.act("lamp", user_id="u2")],
        [stage.act("cup")],
    ]
    stage.outbox.dies_after = cut
    with suppress(Killed):
        for batch in batches:
            await stage(*batch)
    arrived = list(stage.outbox.sent)
    # It starts again with another model, and reads everything once more.
    stage.outbox.dies_after = None
    stage.restore()
    stage.build()
    await swap(stage, "new")
    await stage.start()
    for batch in batches:
        await stage(*batch)
    sent = stage.outbox.sent
    tellings: dict[str, set[bytes | None]] = {}
    for output in sent:
        for told in (*recommendations([output]), *risks([output])):
            name = getattr(told, "recommendation_id", None) or getattr(told, "assessment_id", "")
            tellings.setdefault(name, set()).add(output.value)
    assert len(tellings) >= 5
    assert {len(values) for values in tellings.values()} == {1}
    # What a consumer has seen was not taken back; what it has not may be of the new one.
    seen = {r.recommendation_id for r in recommendations(arrived)}
    made = {r.recommendation_id: r.model.ranker for r in recommendations(sent)}
    assert {made[name] for name in seen} <= {"hybrid-1"}


async def test_the_silent_are_told_of_anew_under_ids_that_name_the_model(tmp_path: Path) -> None:
    # Within one window of assessments: high by one model, low by the next, high by a third.
    stage = PreferenceStage(new_table(tmp_path), Outbox(), churn_assess_s=30 * 86_400)
    stage.stock()
    await stage.start()
    stage.churn.use(Churning("zero", 0.1))
    await stage(stage.act("boots", event_time_ms=NOW_MS))
    told = []
    for name, probability in (("one", 0.9), ("two", 0.1), ("three", 0.9)):
        stage.churn.use(Churning(name, probability))
        stage.monotonic_s += 31 * 86_400
        before = len(stage.outbox.sent)
        await stage.stage.assess_silent()
        told += risks(stage.outbox.sent[before:])
    assert [(r.band, r.model) for r in told] == [("high", "one"), ("low", "two"), ("high", "three")]
    assert len({r.assessment_id for r in told}) == 3
    assert len({r.assessed_ms for r in told}) == 1
