from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import NOW_MS, interaction, message, user
from fakes import Killed, Outbox
from preference_stage import (
    INTERVAL_MS,
    TITLES,
    PreferenceStage,
    dead,
    new_table,
    pairs,
    recommendations,
    risks,
)

from stream.agents.item_vectors import ItemVectors
from stream.core.drafts import erasure_key
from stream.core.events import Context
from stream.core.user_rows import NewerRow, to_row
from stream.core.user_state import Rules, UserState, long_interest
from stream.delivery import DeliveryFailed, SourceMessage
from stream.engine.commits import PartitionCommit
from stream.engine.table import StoreFailed

KAFKA_BYTES = 1_000_000


@pytest.fixture
async def stage(tmp_path: Path) -> PreferenceStage:
    stage = PreferenceStage(new_table(tmp_path), Outbox())
    stage.stock()
    await stage.start()
    return stage


@pytest.fixture
async def bare(tmp_path: Path) -> PreferenceStage:
    """A stage whose catalogue is empty."""
    stage = PreferenceStage(new_table(tmp_path), Outbox())
    await stage.start()
    return stage


def outcomes(stage: PreferenceStage) -> dict[str, int]:
    """What became of the events of the last batch, over all topics."""
    counts: dict[str, int] = {}
    for (_, outcome), n in stage.reports[-1].events.items():
        counts[outcome] = counts.get(outcome, 0) + n
    return counts


def again(batch: SourceMessage, offset: int) -> SourceMessage:
    """The same event, sent once more by its producer."""
    return dataclasses.replace(batch, offset=offset)


# --- one act, one recommendation -----------------------------------------------------------------


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


# --- bursts --------------------------------------------------------------------------------------


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


# --- what is shown -------------------------------------------------------------------------------


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


# --- repeats, poison -----------------------------------------------------------------------------


async def test_an_event_sent_twice_by_its_producer_counts_once(stage: PreferenceStage) -> None:
    act = stage.act("boots")
    await stage(act)
    before = stage.state()
    stage.now_ms += 1000
    sent = await stage(again(act, 1))
    assert {o.topic for o in sent} <= {"user-state"}
    assert outcomes(stage) == {"duplicate": 1}
    after = stage.state()
    assert after is not None
    assert before is not None
    assert (after.long, after.acts, after.activity) == (before.long, before.acts, before.activity)


async def test_a_message_read_again_changes_nothing_and_sends_nothing(
    stage: PreferenceStage,
) -> None:
    batch = [stage.act("boots"), stage.act("tea"), message("clickstream", b"poison", 2)]
    await stage(*batch)
    before = stage.state()
    stage.now_ms += 1000
    sent = await stage(*batch)
    assert {o.topic for o in sent} <= {"user-state"}
    assert stage.state() == before
    assert await stage.due(1000) == []


POISON = [
    b"",
    b"not json",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"event_id": "e"}',
    b'{"event_id":"e","user_id":"u1","item_id":"i","type":"teleport","event_time_ms":1}',
    b'{"event_id":"e","user_id":"other","item_id":"i","type":"click","event_time_ms":1}',
    b'{"event_id":"e","user_id":"u1","item_id":"i","type":"click","event_time_ms":1e99}',
    None,
]


@pytest.mark.parametrize("raw", POISON)
async def test_poison_goes_to_the_dead_letters_and_its_neighbours_are_processed(
    stage: PreferenceStage, raw: bytes | None
) -> None:
    good = [stage.act("boots"), stage.act("tea", user_id="u2")]
    poison = message("clickstream", raw, offset=2, headers=(("h", b"\x00"),))
    sent = await stage(good[0], poison, good[1])
    [letter] = dead(sent)
    assert (letter.value, letter.key) == (raw, b"u1")
    headers = dict(letter.headers)
    assert (headers["h"], headers["dlq.original.offset"]) == (b"\x00", b"2")
    assert {r.user_id for r in recommendations(sent)} == {"u1", "u2"}


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80", None])
async def test_poison_of_the_other_tier_is_treated_alike(
    stage: PreferenceStage, raw: bytes | None
) -> None:
    sent = await stage(message("embedded-texts", raw, 0), stage.act("boots"))
    assert len(dead(sent)) == len(recommendations(sent)) == 1


async def test_a_vector_of_another_encoder_is_never_mixed_in(stage: PreferenceStage) -> None:
    sent = await stage(stage.searched("green tea", encoder="hash-32@other"))
    [letter] = dead(sent)
    assert b"hash-32@other" in dict(letter.headers)["dlq.error.message"]
    assert stage.state() is None


async def test_a_tombstone_without_a_user_is_poison(stage: PreferenceStage) -> None:
    nobody = [message("users", None, n, key=key) for n, key in enumerate([b"", b"\xff"])]
    assert len(dead(await stage(*nobody))) == 2


async def test_a_context_of_any_size_leaves_messages_that_kafka_takes(
    stage: PreferenceStage,
) -> None:
    huge = Context(region="x" * 800_000)
    sent = await stage(*(stage.act(item, context=huge) for item in TITLES))
    sent += await stage(stage.stated(user(region="y" * 400_000, locale="z" * 400_000)))
    assert max(len(output.value or b"") for output in sent) < 50_000


# --- erasure -------------------------------------------------------------------------------------


async def erased(stage: PreferenceStage) -> None:
    await stage(stage.stated(user()), stage.act("boots"), stage.searched("tea"))
    await stage(stage.stated(None))


async def test_an_erased_user_is_gone_and_tombstones_say_so(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"))
    sent = await stage(stage.stated(None))
    assert stage.state() is None
    assert stage.table.rows(0, [erasure_key("u1")]) == [b"0"]
    for topic in ("user-state", "recommendations", "churn-risk"):
        assert [o.value for o in sent if o.topic == topic and o.key == b"u1"] == [None]


async def test_the_mark_of_an_erasure_does_not_name_the_user(stage: PreferenceStage) -> None:
    await stage(stage.stated(None))
    for output in stage.outbox.of("user-state"):
        if output.key != b"u1":
            assert b"u1" not in (output.key or b"")


async def test_late_events_of_an_erased_user_are_dropped(stage: PreferenceStage) -> None:
    await erased(stage)
    stage.now_ms += 1000
    sent = await stage(stage.act("boots"), stage.searched("green tea"))
    assert outcomes(stage) == {"erased": 2}
    assert {o.topic for o in sent} <= {"user-state"}
    assert stage.state() is None


async def test_events_before_and_after_a_tombstone_in_one_batch(stage: PreferenceStage) -> None:
    sent = await stage(stage.act("boots"), stage.stated(None), stage.act("tea"))
    assert recommendations(sent) == []
    assert pairs(sent) == {}
    assert stage.state() is None
    assert outcomes(stage) == {"folded": 2, "erased": 1}


async def test_what_was_put_off_for_an_erased_user_is_not_published(
    stage: PreferenceStage,
) -> None:
    await stage(stage.act("boots"))
    await stage(stage.act("tea"))
    await stage(stage.stated(None))
    assert await stage.due(10 * INTERVAL_MS) == []


async def test_a_new_record_brings_the_user_back_without_a_past(stage: PreferenceStage) -> None:
    await erased(stage)
    stage.now_ms += 1000
    [found] = recommendations(await stage(stage.stated(user(region="north")), stage.act("cup")))
    assert found.trigger.offset == 1
    state = stage.state()
    assert state is not None
    assert [act.item_id for act in state.acts] == ["cup"]
    assert state.stated.region == "north"
    assert stage.table.rows(0, [erasure_key("u1")]) == [None]


async def test_tombstones_come_before_what_is_published_after_a_return_in_one_batch(
    stage: PreferenceStage,
) -> None:
    sent = await stage(
        stage.act("boots"), stage.stated(None), stage.stated(user()), stage.act("cup")
    )
    values = [output.value for output in sent if output.topic == "recommendations"]
    assert values[0] is None
    assert len(recommendations(sent)) == len(values) - 1 == 1


async def test_an_old_record_read_again_does_not_bring_an_erased_user_back(
    stage: PreferenceStage,
) -> None:
    old = stage.stated(user())
    await stage(old, stage.act("boots"))
    await stage(stage.stated(None))
    await stage(old)
    assert stage.state() is None
    assert outcomes(stage) == {"erased": 1}


async def test_an_old_tombstone_read_again_does_not_erase_a_user_who_came_back(
    stage: PreferenceStage,
) -> None:
    tombstone, back = stage.stated(None), stage.stated(user())
    await stage(tombstone)
    await stage(back, stage.act("boots"))
    before = stage.state()
    # After a crash all of it is read again, the topics in another order.
    sent = await stage(stage.act("tea"), tombstone, back)
    after = stage.state()
    assert before is not None
    assert after is not None
    assert [act.item_id for act in after.acts] == ["boots", "tea"]
    assert not [o for o in sent if o.value is None and o.topic == "recommendations"]


async def test_a_tombstone_for_someone_unknown_is_remembered(stage: PreferenceStage) -> None:
    await stage(stage.stated(None))
    await stage(stage.act("boots"))
    assert stage.state() is None


async def test_who_does_not_want_to_be_profiled_is_neither_kept_nor_published(
    stage: PreferenceStage,
) -> None:
    await stage(stage.act("boots"))
    await stage(stage.act("tea"))  # put off
    stage.now_ms += 20
    await stage(stage.stated(user(personalize=False)))
    sent = await stage.due(10 * INTERVAL_MS)
    sent += await stage(stage.act("cup"), stage.searched("lamp"))
    stage.monotonic_s += 10**6
    await stage.stage.assess_silent()
    sent += await stage.due(10 * INTERVAL_MS)
    assert {o.topic for o in sent} <= {"user-state"}
    state = stage.state()
    assert state is not None
    assert (state.acts, state.texts, state.long, state.faded) == ((), (), None, ())


async def test_who_wants_to_be_profiled_again_begins_anew(stage: PreferenceStage) -> None:
    await stage(stage.stated(user(personalize=False)), stage.act("boots"))
    await stage(stage.stated(user(personalize=True, updated_ms=NOW_MS + 1)))
    [found] = recommendations(await stage(stage.act("tea")))
    assert found.trigger.offset == 1


# --- pairs ---------------------------------------------------------------------------------------


async def test_pairs_go_to_the_partition_of_each_item(stage: PreferenceStage) -> None:
    sent = await stage(stage.act("boots"), stage.act("tea"), stage.act("tea"))
    by_partition = pairs(sent)
    touched = []
    for partition, messages in by_partition.items():
        for one in messages:
            assert one.source_partition == 0
            for touch in one.touches:
                key = touch.item_id.encode()
                assert stage.outbox.partition_of("item-pairs", key) == partition
                touched.append((touch.item_id, tuple(touch.others), touch.first, touch.weight))
    assert sorted(touched) == sorted(
        [
            ("boots", (), True, 0.5),
            ("tea", ("boots",), True, 0.5),
            ("boots", ("tea",), False, 0.0),
            ("tea", (), False, 0.5),
        ]
    )


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
    users = [f"u{n}" for n in range(40)]
    acts = [stage.act(f"{n:0200d}", user_id=who) for who in users for n in range(50)]
    sent = await stage(*acts)
    assert max(len(output.value or b"") for output in sent) < KAFKA_BYTES
    [messages] = pairs(sent).values()
    sequences = [one.sequence for one in messages]
    assert len(sequences) > 2
    assert sequences == sorted(set(sequences))  # or the later parts would pass for repeats
    firsts = sum(touch.first for one in messages for touch in one.touches)
    assert firsts == 40 * 50


# --- churn ---------------------------------------------------------------------------------------


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


# --- a process that ends, and others ------------------------------------------------------------


@pytest.mark.parametrize("cut", range(0, 14))
async def test_a_batch_cut_off_anywhere_ends_with_the_state_and_ids_of_an_undisturbed_one(
    tmp_path: Path, cut: int
) -> None:
    async def run(dies_after: int | None, folder: Path) -> PreferenceStage:
        stage = PreferenceStage(new_table(folder), Outbox(), min_interval_ms=0)
        stage.stock()
        await stage.start()
        batches = [
            [stage.act("boots"), message("clickstream", b"poison", 50, key=b"u9")],
            [stage.searched("green tea")],
            [stage.stated(user(region="north")), stage.searched("lamp")],
        ]
        stage.outbox.dies_after = dies_after
        try:
            for batch in batches:
                await stage(*batch)
        except Killed:
            stage.outbox.dies_after = None
            stage.build()
            await stage.start()
            for batch in batches:
                await stage(*batch)
        return stage

    calm = await run(None, tmp_path / "calm")
    stage = await run(cut, tmp_path / "cut")
    mine, theirs = stage.state(), calm.state()
    assert mine is not None
    assert theirs is not None
    assert (mine.acts, mine.texts, mine.long, mine.activity, mine.offsets) == (
        theirs.acts,
        theirs.texts,
        theirs.long,
        theirs.activity,
        theirs.offsets,
    )
    ids = {r.recommendation_id for r in recommendations(stage.outbox.sent)}
    assert ids == {r.recommendation_id for r in recommendations(calm.outbox.sent)}
    for r_id in ids:
        same = {
            output.value
            for output in stage.outbox.of("recommendations")
            if r_id.encode() in (output.value or b"")
        }
        assert len(same) == 1
    assert {o.value for o in dead(stage.outbox.sent)} == {b"poison"}


async def test_users_of_several_partitions_do_not_meet(stage: PreferenceStage) -> None:
    await stage(stage.act("boots", partition=0), stage.act("tea", partition=1))
    zero, one = stage.state(partition=0), stage.state(partition=1)
    assert zero is not None
    assert one is not None
    assert [a.item_id for a in zero.acts] == ["boots"]
    assert [a.item_id for a in one.acts] == ["tea"]


async def test_a_recommendation_that_fails_for_one_user_costs_that_event_alone(
    stage: PreferenceStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.recommending._recommender.recommend

    def broken(profiles: Any, k: int, now_ms: int) -> Any:
        if any(p.items and p.items[-1].item_id == "lamp" for p in profiles):
            raise ZeroDivisionError("a bug")
        return real(profiles, k, now_ms)

    monkeypatch.setattr(stage.recommending._recommender, "recommend", broken)
    acts = [stage.act("boots", user_id=f"u{n}") for n in range(99)]
    bad = stage.act("lamp", user_id="bad")
    sent = await stage(*acts[:40], bad, *acts[40:])
    assert [letter.key for letter in dead(sent)] == [b"bad"]
    assert sorted(r.user_id for r in recommendations(sent)) == sorted(f"u{n}" for n in range(99))
    assert stage.state("bad") is None
    for n in range(99):
        state = stage.state(f"u{n}")
        assert state is not None
        assert len(state.acts) == 1


@pytest.mark.parametrize("error", [StoreFailed("disk"), DeliveryFailed("broker"), OSError("disk")])
async def test_trouble_of_the_worker_is_not_blamed_on_an_event(
    stage: PreferenceStage, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(stage.table, "rows", broken)
    with pytest.raises(type(error)):
        await stage(stage.act("boots"), stage.act("tea"))
    assert dead(stage.outbox.sent) == []


async def test_a_worker_does_not_touch_an_event_of_another_key(stage: PreferenceStage) -> None:
    wrong = message("clickstream", interaction(user_id="u1"), 0, key=b"u2")
    assert len(dead(await stage(wrong))) == 1
    assert stage.state("u1") is None


async def test_a_row_of_a_newer_version_stops_the_worker_and_stays(stage: PreferenceStage) -> None:
    row = b"\x07" + to_row(UserState())[1:]
    await stage.committer.commit([PartitionCommit(0, {b"u1": row})])
    n_sent = len(stage.outbox.sent)
    with pytest.raises(NewerRow, match="version 7"):
        await stage(stage.act("tea", user_id="u2"), stage.act("boots"))
    assert stage.table.rows(0, [b"u1"]) == [row]
    assert len(stage.outbox.sent) == n_sent


async def test_rows_are_measured_and_stay_within_their_bytes(tmp_path: Path) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), max_state_bytes=512)
    stage.stock()
    await stage.start()
    for n in range(60):
        await stage(stage.act(f"an item that nobody knows, number {n}"))
    lengths = [length for report in stage.reports for length in report.row_bytes]
    assert len(lengths) == 60
    assert max(lengths) <= 512
    stored = stage.table.read(0, [b"u1"])[0]
    assert stored is not None
    assert lengths[-1] == len(stored)
    assert sum(report.n_trimmed for report in stage.reports) > 0


async def test_what_was_bought_long_ago_within_the_window_is_not_shown_though_its_act_is_gone(
    tmp_path: Path,
) -> None:
    stage = PreferenceStage(new_table(tmp_path), Outbox(), history_items=1, min_interval_ms=0)
    stage.stock()
    await stage.start()
    await stage(stage.act("boots", "purchase"), stage.act("shoes", "purchase"))
    await stage(stage.act("tea", "dislike"))
    stage.now_ms += 1000
    found = recommendations(await stage(stage.act("cup")))
    assert [act.item_id for act in (stage.state() or UserState()).acts] == ["cup"]
    shown = {item.item_id for r in found for item in r.items}
    assert shown
    assert not shown & {"boots", "shoes", "tea"}
