"""Repeats, poison, and processes that end: what must come out as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import interaction, message, user
from fakes import Killed, Outbox
from preference_stage import (
    TITLES,
    PreferenceStage,
    again,
    dead,
    new_table,
    outcomes,
    recommendations,
)

from stream.core.events import Context
from stream.core.user_rows import NewerRow, to_row
from stream.core.user_state import UserState
from stream.delivery import DeliveryFailed
from stream.engine.commits import PartitionCommit
from stream.engine.table import StoreFailed

KAFKA_BYTES = 1_000_000


# --- repeats, poison ------------------------------------------------------------------------------


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


# --- a process that ends, and others --------------------------------------------------------------


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
