"""More acts than can be answered at once: read first, answered after, and nobody forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import Outbox
from preference_stage import PreferenceStage, new_table, recommendations

from stream.agents.pace import BEHIND_S, LISTS_A_TURN, MANY_EVENTS, Pace


@pytest.fixture
async def small(tmp_path: Path) -> PreferenceStage:
    """A stage that has begun, for which a hundred events are a full batch."""
    stage = PreferenceStage(new_table(tmp_path), Outbox(), batch_max=100)
    await stage.start()
    stage.stock()
    return stage


async def test_a_backlog_is_read_first_and_then_each_gets_one_list_from_all_of_it(
    small: PreferenceStage,
) -> None:
    sent = []
    for item in ("boots", "lamp", "tea"):
        sent += await small(*(small.act(item, user_id=f"u{n}") for n in range(100)))
    assert recommendations(sent) == []
    small.monotonic_s += BEHIND_S
    found = recommendations(await small.due(0))
    assert sorted(r.user_id for r in found) == sorted(f"u{n}" for n in range(100))
    assert {r.trigger.offset for r in found} == set(range(200, 300))
    named = {reason.item_id for item in found[0].items for reason in item.reasons}
    assert {"boots", "tea"} <= named


async def test_a_backlog_whose_batches_take_long_is_a_backlog_all_the_same(
    small: PreferenceStage,
) -> None:
    def clock() -> int:  # asked once the batch is folded
        small.monotonic_s += 9
        return small.now_ms

    small.stage._clock = clock
    acts = [small.act("boots", user_id=f"u{n}") for n in range(100)]
    assert recommendations(await small(*acts)) == []


async def test_a_few_are_answered_while_a_backlog_lasts_those_who_have_waited_longest(
    small: PreferenceStage,
) -> None:
    answered = []
    for batch in range(4):
        users = [f"u{100 * batch + n:03}" for n in range(100)]
        await small(*(small.act("boots", user_id=user_id) for user_id in users))
        small.monotonic_s += 0.2
        small.now_ms += 200
        answered += [r.user_id for r in recommendations(await small.due(0))]
    assert answered == [f"u{n:03}" for n in range(64)] + [f"u{n:03}" for n in range(64, 128)]


async def test_whoever_acts_while_others_wait_is_answered_at_once(small: PreferenceStage) -> None:
    await small(*(small.act("boots", user_id=f"u{n}") for n in range(100)))
    small.monotonic_s += BEHIND_S
    [found] = recommendations(await small(small.act("tea", user_id="anna")))
    assert found.user_id == "anna"


async def test_no_turn_makes_more_lists_than_others_can_wait_for(small: PreferenceStage) -> None:
    users = [f"u{n:02}" for n in range(99)]
    sent = recommendations(await small(*(small.act("boots", user_id=u) for u in users)))
    assert [r.user_id for r in sent] == users[:LISTS_A_TURN]
    before = len(small.outbox.sent)
    assert await small.stage.publish_due()
    sent += recommendations(small.outbox.sent[before:])
    assert [r.user_id for r in sent] == users
    assert not await small.stage.publish_due()


@pytest.mark.parametrize(
    ("n_events", "batch_max", "room"),
    [
        (MANY_EVENTS, 10 * MANY_EVENTS, 0),
        (MANY_EVENTS - 1, 10 * MANY_EVENTS, LISTS_A_TURN),
        (100, 100, 0),
        (99, 100, LISTS_A_TURN),
    ],
)
def test_a_batch_is_of_a_backlog_when_it_is_large_or_full(
    n_events: int, batch_max: int, room: int
) -> None:
    pace = Pace(batch_max, lambda: 5.0)
    with pace.reading(n_events):
        assert pace.room_for_batch() == room
