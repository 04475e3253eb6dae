from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from builders import NOW_MS, interaction, message, user

from stream.core.drafts import UserDraft, erasure_key, user_key
from stream.core.fold import Sourced
from stream.core.intake import Erasure, Taken, intake
from stream.core.kept import NOTHING, read_kept
from stream.core.user_rows import from_row, to_row
from stream.core.user_state import Rules, UserState
from stream.settings import load_settings

RULES = Rules.of(load_settings())
VECTORS = {"boots": np.ones(4, np.float32), "tea": -np.ones(4, np.float32)}


@pytest.fixture(autouse=True, params=["native", "python"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr("stream.core.kept.is_native", lambda: False)


def act(item_id: str, offset: int, **fields: Any) -> Taken:
    event = interaction(event_id=f"e{offset}", item_id=item_id, **fields)
    return intake(message("clickstream", event, offset), "e")


def record(offset: int, **fields: Any) -> Taken:
    return intake(message("users", user(**fields), offset), "e")


def tombstone(offset: int) -> Taken:
    return Taken(message("users", None, offset), "u1", Erasure(offset))


def applied(
    *taken: Taken,
    row: bytes | None = None,
    erasure: bytes | None = None,
    covered: Mapping[str, int] | None = None,
) -> UserDraft:
    draft = UserDraft.load("u1", 0, NOTHING if row is None else read_kept(row), erasure)
    draft.taken = list(taken)
    draft.apply(VECTORS, RULES, covered or {})
    return draft


def items(draft: UserDraft) -> list[str]:
    return [a.item_id for a in draft.state.acts]


def stored(draft: UserDraft) -> tuple[bytes | None, bytes | None]:
    rows = draft.rows()
    return rows.get(user_key("u1")), rows.get(erasure_key("u1"))


def test_a_draft_without_events_has_nothing_to_store() -> None:
    assert applied().rows() == {}
    assert applied(row=to_row(UserState(band="low"))).rows() == {}


def test_an_act_is_stored_and_triggers() -> None:
    draft = applied(act("boots", 3))
    row, mark = stored(draft)
    assert row is not None
    assert from_row(row).acts == draft.state.acts
    assert mark is None
    assert draft.trigger is not None
    assert draft.trigger.offset == 3
    assert draft.outcomes == ["folded"]


def test_an_event_that_a_ledger_covers_is_folded_into_a_lost_row_without_output() -> None:
    draft = applied(act("boots", 3), act("tea", 4), covered={"clickstream": 3})
    assert items(draft) == ["boots", "tea"]
    assert [t.item_id for t in draft.touches] == ["tea"]
    assert draft.touches[0].others == ("boots",)
    assert draft.trigger is not None
    assert draft.covered_trigger is not None
    assert (draft.trigger.offset, draft.covered_trigger.offset) == (4, 3)


def test_a_row_that_reflects_an_event_already_stays() -> None:
    before = applied(act("boots", 3)).state
    again = applied(act("boots", 3), row=to_row(before), covered={"clickstream": 3})
    assert again.state == before
    assert (again.outcomes, again.trigger, again.covered_trigger) == (["repeat"], None, None)


def test_an_erasure_leaves_no_row_and_a_mark() -> None:
    draft = applied(act("boots", 3), tombstone(7), row=to_row(UserState(band="low")))
    assert stored(draft) == (None, b"7")
    assert user_key("u1") in draft.rows()
    assert draft.erased_now
    assert (draft.trigger, draft.touches) == (None, [])
    assert not draft.publishable()


def test_a_mark_of_offset_zero_is_a_mark() -> None:
    draft = applied(tombstone(0), erasure=b"0")
    assert not draft.erased_now
    assert applied(act("boots", 1), erasure=b"0").outcomes == ["erased"]


def test_an_older_tombstone_read_again_does_not_move_the_mark_back() -> None:
    draft = applied(tombstone(5), erasure=b"7")
    assert (draft.erased_at, draft.rows()) == (7, {})


def test_a_newer_tombstone_moves_the_mark() -> None:
    draft = applied(tombstone(9), erasure=b"7")
    assert stored(draft) == (None, b"9")


@pytest.mark.parametrize(("offset", "back"), [(6, False), (7, False), (8, True)])
def test_only_a_record_behind_the_tombstone_brings_a_user_back(offset: int, back: bool) -> None:
    draft = applied(record(offset), act("boots", 1), erasure=b"7")
    assert draft.publishable() == back
    assert items(draft) == (["boots"] if back else [])
    if back:
        assert draft.rows()[erasure_key("u1")] is None  # the mark goes
    else:
        assert draft.outcomes == ["erased", "erased"]


def test_the_interests_of_an_erased_user_bring_nobody_back() -> None:
    event = Sourced("interests", 0, 99, NOW_MS, user(), np.ones(4, np.float32))
    draft = applied(Taken(message("embedded-texts", b"", 99), "u1", event), erasure=b"7")
    assert draft.outcomes == ["erased"]


def test_erased_and_back_and_erased_in_one_batch() -> None:
    draft = applied(
        act("boots", 1), tombstone(2), act("tea", 2), record(3), act("tea", 4), tombstone(5)
    )
    assert draft.outcomes == ["folded", "folded", "erased", "folded", "folded", "folded"]
    assert stored(draft) == (None, b"5")
    draft = applied(act("boots", 1), tombstone(2), record(3), act("tea", 4))
    assert items(draft) == ["tea"]
    assert draft.publishable()
    # What was published before is taken back all the same.
    assert draft.erased_now


def test_a_user_who_came_back_is_not_erased_by_an_old_tombstone() -> None:
    back = applied(tombstone(2), record(3), act("boots", 1)).state
    again = applied(tombstone(2), record(3), row=to_row(back))
    assert again.state == back
    assert not again.erased_now


def test_the_mark_cannot_be_a_users_row_and_does_not_hold_the_name() -> None:
    key = erasure_key("u1")
    assert b"u1" not in key
    assert key != erasure_key("u2")
    with pytest.raises(UnicodeDecodeError):
        key.decode()


def test_the_arrival_of_a_trigger_is_that_of_its_own_event() -> None:
    late = intake(message("clickstream", interaction(), 3, timestamp_ms=NOW_MS + 9), "e")
    draft = applied(act("tea", 2), late)
    assert draft.trigger is not None
    assert draft.arrival_ms(draft.trigger) == NOW_MS + 9
