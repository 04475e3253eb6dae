"""Erased users, and those who do not want to be profiled."""

from __future__ import annotations

from builders import NOW_MS, user
from preference_stage import (
    INTERVAL_MS,
    PreferenceStage,
    outcomes,
    pairs,
    recommendations,
)

from stream.core.drafts import erasure_key

KAFKA_BYTES = 1_000_000


async def erased(stage: PreferenceStage) -> None:
    await stage(stage.stated(user()), stage.act("boots"), stage.searched("tea"))
    await stage(stage.stated(None))


async def test_an_erased_user_is_gone_and_tombstones_say_so(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"))
    sent = await stage(stage.stated(None))
    assert stage.state() is None
    assert stage.table.rows(0, [erasure_key("u1")]) == [b"0"]
    for topic in ("user-state", "recommendations", "churn-risk", "search-results"):
        assert [o.value for o in sent if o.topic == topic and o.key == b"u1"] == [None]


async def test_the_mark_of_an_erasure_does_not_name_the_user(stage: PreferenceStage) -> None:
    await stage(stage.stated(None))
    for output in stage.outbox.of("user-state"):
        if output.key != b"u1":
            assert b"u1" not in (output.key or b"")


async def test_the_ledger_does_not_name_the_erased_either(stage: PreferenceStage) -> None:
    await stage(stage.act("boots"), stage.searched("tea"))
    await stage(stage.stated(None))
    newest = {output.key: output.value for output in stage.outbox.of("user-state")}
    assert newest.pop(b"u1") is None
    assert not [key for key, value in newest.items() if b"u1" in (value or b"")]
    stage.restore()
    stage.build()
    await stage.start()
    assert stage.state() is None


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
    # A search is a direct request: its answer needs no profile.
    assert {o.topic for o in sent} <= {"user-state", "search-results"}
    state = stage.state()
    assert state is not None
    assert (state.acts, state.texts, state.long, state.faded) == ((), (), None, ())


async def test_who_wants_to_be_profiled_again_begins_anew(stage: PreferenceStage) -> None:
    await stage(stage.stated(user(personalize=False)), stage.act("boots"))
    await stage(stage.stated(user(personalize=True, updated_ms=NOW_MS + 1)))
    [found] = recommendations(await stage(stage.act("tea")))
    assert found.trigger.offset == 1
