"""Acts in, recommendations, churn risk and pairs out."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import NOW_MS, user
from fakes import Outbox
from preference_stage import (
    INTERVAL_MS,
    TITLES,
    PreferenceStage,
    new_table,
    outcomes,
    pairs,
    recommendations,
    risks,
)

from stream.agents.item_vectors import ItemVectors
from stream.agents.recommending import SLICE
from stream.core.profiles import long_interest
from stream.core.user_rows import Written, read_row
from stream.core.user_state import Rules

KAFKA_BYTES = 1_000_000


# --- one act, one recommendation ------------------------------------------------------------------


async def test_an_act_is_answered_with_items_reasons_and_the_act_itself(
    stage: PreferenceStage,
) -> None:
    act = stage.act("boots", event_id="the-click")
    [found] = recommendations(await stage(act))
    assert (found.user_id, found.generated_ms) == ("u1", stage.now_ms)
    trigger = found.trigger
    assert (trigger.topic, trigger.partition, trigger.offset) == ("clickstream", 0, 0)
    assert (trigger.event_id, trigger.event_time_ms) == ("the-click", NOW_MS)
    assert [item.rank for item in found.items] == [1, 2, 3, 4, 5]
    assert {"shoes", "laces"} & {item.item_id for item in found.items[:2]}
    assert all(item.reasons for item in found.items)
    assert any(r.item_id == "boots" for item in found.items for r in item.reasons)
    assert not found.cold_start
    assert found.expires_ms > found.generated_ms
    assert found.model.encoder == stage.encoder.encoder_id


async def test_a_recommendation_is_keyed_by_its_user(stage: PreferenceStage) -> None:
    sent = await stage(stage.act("boots", user_id="ü2"))
    assert [o.key for o in sent if o.topic == "recommendations"] == ["ü2".encode()]


async def test_a_search_is_a_reason(stage: PreferenceStage) -> None:
    [found] = recommendations(await stage(stage.searched("green tea")))
    assert found.items[0].item_id == "tea"
    assert found.trigger.topic == "searches"
    assert any(r.query == "green tea" for r in found.items[0].reasons)


async def test_a_bad_review_speaks_against_what_resembles_it(stage: PreferenceStage) -> None:
    [found] = recommendations(
        await stage(stage.act("tea"), stage.reviewed("boots", "awful boots", 1))
    )
    assert found.trigger.topic == "reviews"
    assert found.items[0].item_id == "cup"


async def test_an_impression_alone_causes_nothing(stage: PreferenceStage) -> None:
    sent = await stage(stage.act("boots", "impression"))
    assert recommendations(sent) == []
    assert stage.state() is not None


async def test_a_new_user_is_shown_what_fits_the_stated_interests(stage: PreferenceStage) -> None:
    who = user(interests=["tea leaves"])
    sent = await stage(stage.stated(who), stage.embedded("user", who, "tea leaves", 0))
    [found] = recommendations(sent)
    assert found.cold_start
    assert found.items[0].item_id == "tea"


async def test_each_user_of_a_batch_gets_one(stage: PreferenceStage) -> None:
    acts = [stage.act("boots", user_id=f"u{n % 3}", partition=n % 2) for n in range(12)]
    found = recommendations(await stage(*acts))
    assert sorted(r.user_id for r in found) == ["u0", "u0", "u1", "u1", "u2", "u2"]
    assert {(r.user_id, r.trigger.partition) for r in found} == {
        (f"u{n % 3}", n % 2) for n in range(6)
    }


# --- bursts ---------------------------------------------------------------------------------------


async def test_a_burst_is_answered_at_once_and_once_more_when_it_is_over(
    stage: PreferenceStage,
) -> None:
    first = recommendations(await stage(stage.act("boots")))
    burst = [item for _ in range(5) for item in await stage(stage.act("tea"))]
    assert (len(first), recommendations(burst)) == (1, [])
    assert recommendations(await stage.due(INTERVAL_MS - 1)) == []
    [last] = recommendations(await stage.due(1))
    assert last.trigger.offset == 5  # the last act of the burst
    assert last.items[0].item_id == "cup"  # and the state after it
    assert last.recommendation_id != first[0].recommendation_id
    assert recommendations(await stage.due(10 * INTERVAL_MS)) == []


async def test_several_acts_of_one_batch_are_answered_once_from_the_last(
    stage: PreferenceStage,
) -> None:
    [found] = recommendations(await stage(stage.act("boots"), stage.act("tea"), stage.act("cup")))
    assert found.trigger.offset == 2
    assert await stage.due(10 * INTERVAL_MS) == []


async def test_never_two_within_the_interval_however_acts_and_timer_fall(
    stage: PreferenceStage,
) -> None:
    generated = []
    for step in range(120):
        sent = []
        if step % 3 != 2:
            sent += await stage(stage.act(list(TITLES)[step % len(TITLES)]))
        if step % 2:
            sent += await stage.due(0)
        stage.now_ms += 13
        generated += [r.generated_ms for r in recommendations(sent)]
    gaps = [later - earlier for earlier, later in pairwise(generated)]
    assert min(gaps) >= INTERVAL_MS
    assert max(gaps) <= INTERVAL_MS + 3 * 13


async def test_what_was_put_off_is_found_by_the_next_worker_and_waits_out_the_interval(
    stage: PreferenceStage,
) -> None:
    await stage(stage.act("boots"))
    await stage(stage.act("tea"))
    stage.build()
    await stage.start()
    assert recommendations(await stage.due(0)) == []
    [found] = recommendations(await stage.due(INTERVAL_MS))
    assert found.trigger.offset == 1
    assert recommendations(await stage.due(INTERVAL_MS)) == []


async def test_a_partition_that_was_let_go_of_is_not_published_for(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"))
    await stage(stage.act("tea"))
    await stage.stage.release({0})
    assert await stage.due(10 * INTERVAL_MS) == []
    await stage.stage.assess_silent()


# --- what is shown --------------------------------------------------------------------------------


async def test_while_the_catalogue_is_empty_nothing_is_sent_and_nothing_is_forgotten(
    bare: PreferenceStage,
) -> None:
    assert recommendations(await bare(bare.act("boots"))) == []
    assert recommendations(await bare.due(5000)) == []
    bare.stock()
    [found] = recommendations(await bare.due(5000))
    assert found.trigger.offset == 0
    assert len(found.items) == 5
    assert recommendations(await bare.due(5000)) == []


async def test_nobody_goes_unanswered_when_the_first_items_come_while_many_are_ranked(
    bare: PreferenceStage,
) -> None:
    users = [f"u{number}" for number in range(3 * SLICE)]

    async def first_items() -> None:
        bare.stock()

    arriving = asyncio.create_task(first_items())
    sent = await bare(*(bare.act("boots", user_id=user_id) for user_id in users))
    await arriving
    sent += await bare.due(5000)
    assert sorted(r.user_id for r in recommendations(sent)) == sorted(users)


async def test_an_act_on_an_item_that_comes_later_counts_once_it_is_there(
    bare: PreferenceStage,
) -> None:
    await bare(bare.act("boots"))
    assert outcomes(bare) == {"unknown_item": 1}
    before = bare.state()
    assert before is not None
    assert before.long is None
    bare.stock()
    bare.now_ms += 10_000
    await bare(bare.act("tea", "impression"))
    after = bare.state()
    assert after is not None
    assert after.acts == before.acts
    rules = Rules.of(bare.settings)
    both, weight = long_interest(after, ItemVectors(bare.catalogue), rules)
    assert both is not None
    assert weight == pytest.approx(rules.weights["click"] + rules.weights["impression"], abs=1e-3)


async def test_a_row_goes_on_behind_what_was_written_before(stage: PreferenceStage) -> None:
    def written() -> Written:
        row = stage.table.rows(0, [b"u1"])[0]
        assert row is not None
        told = read_row(row)[1]
        assert told is not None
        return told

    await stage(stage.act("boots"))
    first = written()
    await stage(stage.act("hat"))
    await stage(stage.act("laces"))
    assert written().base == first.base
    assert len(written().behind) == len(first.behind) + 2


@pytest.mark.parametrize("kind", ["purchase", "dislike"])
async def test_what_was_bought_or_disliked_is_never_shown(
    stage: PreferenceStage, kind: str
) -> None:
    for item_id in TITLES:
        stage.now_ms += 1000
        found = recommendations(await stage(stage.act(item_id, kind)))
        gone = list(TITLES)[: list(TITLES).index(item_id) + 1]
        shown = {item.item_id for r in found for item in r.items}
        assert not shown & set(gone)
        assert len(shown) == min(5, len(TITLES) - len(gone))


async def test_what_left_the_shop_is_never_shown(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"))
    stage.catalogue.remove(["shoes", "laces"])
    stage.now_ms += 1000
    [found] = recommendations(await stage(stage.act("boots")))
    assert not {"shoes", "laces"} & {item.item_id for item in found.items}
    assert len(found.items) == 5


async def test_no_list_is_longer_than_the_shop(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), top_k=50)
    stage.stock("boots", "tea", "cup")
    await stage.start()
    [found] = recommendations(await stage(stage.act("boots", "purchase")))
    assert {item.item_id for item in found.items} == {"tea", "cup"}


# --- pairs ----------------------------------------------------------------------------------------


async def test_pairs_go_to_the_partition_of_each_item(stage: PreferenceStage) -> None:
    sent = await stage(stage.act("boots"), stage.act("tea"), stage.act("tea"))
    by_partition = pairs(sent)
    touched, beside = [], []
    for partition, messages in by_partition.items():
        for one in messages:
            assert one.source_partition == 0
            for touch in one.touches:
                key = touch.item_id.encode()
                assert stage.outbox.partition_of("item-pairs", key) == partition
                touched.append((touch.item_id, tuple(touch.others), touch.first, touch.weight))
            for one_beside in one.beside:
                for other in one_beside.others:
                    assert stage.outbox.partition_of("item-pairs", other.encode()) == partition
                    beside.append((one_beside.item_id, other))
    assert sorted(touched) == [
        ("boots", (), True, 0.5),
        ("tea", (), False, 0.5),
        ("tea", ("boots",), True, 0.5),
    ]
    assert beside == [("tea", "boots")]


async def test_sequences_of_pairs_grow_by_batch(stage: PreferenceStage) -> None:
    sequences = []
    for item_id in TITLES:
        by_partition = pairs(await stage(stage.act(item_id)))
        of_batch = [one.sequence for messages in by_partition.values() for one in messages]
        assert min(of_batch) > max(sequences, default=-1)
        sequences += of_batch


async def test_a_batch_of_many_pairs_is_cut_into_messages_that_kafka_takes(
    tmp_path: Path,
) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(partitions=1))
    await stage.start()
    users = [f"u{n}" for n in range(160)]
    acts = [stage.act(f"{n:0200d} of {who}", user_id=who) for who in users for n in range(50)]
    sent = await stage(*acts)
    assert max(len(output.value or b"") for output in sent) < KAFKA_BYTES
    [messages] = pairs(sent).values()
    sequences = [one.sequence for one in messages]
    assert len(sequences) > 2
    assert sequences == sorted(set(sequences))  # or the later parts would pass for repeats
    firsts = sum(touch.first for one in messages for touch in one.touches)
    assert firsts == 160 * 50


# --- churn ----------------------------------------------------------------------------------------


async def test_the_first_act_is_assessed(stage: PreferenceStage) -> None:
    [risk] = risks(await stage(stage.act("boots", "purchase", price=10.0)))
    assert risk.user_id == "u1"
    assert risk.previous_band is None
    assert risk.trigger is not None
    assert risk.trigger.offset == 0
    assert 0 < risk.probability < 1


async def silent(stage: PreferenceStage, seconds: float) -> list[Any]:
    before = len(stage.outbox.sent)
    stage.monotonic_s += seconds
    await stage.stage.assess_silent()
    return stage.outbox.sent[before:]


async def test_silence_raises_the_risk_and_each_band_is_published_once(
    stage: PreferenceStage,
) -> None:
    day_ms = 86_400_000
    published = []
    for n in range(25):
        stage.now_ms = NOW_MS - (50 - 2 * n) * day_ms
        bought = stage.act("boots", "purchase", price=10.0, event_time_ms=stage.now_ms)
        last = risks(await stage(bought))
        published = last or published
    assert [risk.band for risk in published] == ["low"]
    for _ in range(100):
        stage.now_ms += day_ms
        published += risks(await silent(stage, 86_400))
    bands = [risk.band for risk in published]
    assert bands == ["low", "medium", "high"]
    assert [risk.previous_band for risk in published[1:]] == bands[:-1]
    assert all(risk.trigger is None for risk in published[1:])
    assert len({risk.assessment_id for risk in published}) == len(published)
    probabilities = [risk.probability for risk in published]
    assert probabilities == sorted(probabilities)


async def test_the_timer_writes_no_row_that_did_not_change(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"))
    await silent(stage, 86_400)
    assert await silent(stage, 86_400) == []


async def test_the_timer_looks_at_a_slice_of_the_users(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), churn_assess_s=100)
    stage.stock()
    await stage.start()
    await stage(*(stage.act("boots", user_id=f"u{n}") for n in range(200)))
    seen = []
    for _ in range(102):
        await silent(stage, 1.0)
        seen.append(sum(r.n_assessed["timer"] for r in stage.reports[-2:]))
    assert max(seen) <= 4
    assert sum(seen) >= 200
