"""What gives way when a row is too long, and what does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, interaction, search, user

from stream.core.fold import Folded, Sourced, fold
from stream.core.profiles import long_interest, profile_of
from stream.core.user_rows import longest, row_of, to_row
from stream.core.user_state import STAMP_BYTES, Rules, UserState
from stream.settings import load_settings

DIM = 384
RULES = Rules.of(load_settings())
ROOM = RULES.max_state_bytes - STAMP_BYTES
_rng = np.random.default_rng(3)
VECTORS = {
    f"B00{n:07d}": (v / np.linalg.norm(v)).astype(np.float32)
    for n, v in enumerate(_rng.standard_normal((400, DIM)))
}
ITEMS = list(VECTORS)
HOUR_MS = 3_600_000


def act(n: int, kind: str = "click", item_id: str = "", **fields: Any) -> Sourced:
    at_ms = NOW_MS + n * HOUR_MS
    event = interaction(
        event_id=f"e{n}",
        item_id=item_id or ITEMS[n % len(ITEMS)],
        type=kind,
        event_time_ms=at_ms,
        **fields,
    )
    return Sourced("clickstream", 0, n, at_ms, event)


def searched(n: int, query: str = "red boots") -> Sourced:
    at_ms = NOW_MS + n * HOUR_MS
    event = search(event_id=f"s{n}", query=query, event_time_ms=at_ms)
    return Sourced("searches", 0, n, at_ms, event, VECTORS[ITEMS[n % len(ITEMS)]])


def folded(*events: Sourced, before: UserState | None = None, rules: Rules = RULES) -> Folded:
    """One event a batch, as they come."""
    result = fold(before or UserState(), (), VECTORS, rules)
    for event in events:
        result = fold(result.state, [event], VECTORS, rules)
    return result


def test_a_heavy_user_of_everything_fits_and_keeps_the_newest():
    events: list[Sourced] = [Sourced("users", 0, 0, NOW_MS, user(interests=["tea"], region="eu"))]
    for n in range(400):
        events.append(act(n, ["view", "impression", "purchase", "dislike", "click"][n % 5]))
        if n % 10 == 0:
            events.append(searched(n))
    result = folded(*events)
    state = result.state
    assert len(to_row(state)) <= ROOM
    assert result.trigger is not None
    assert len(to_row(msgspec.structs.replace(state, pending=result.trigger))) <= ROOM
    assert len(state.acts) >= 6
    assert state.acts[-1].event_time_ms == NOW_MS + 399 * HOUR_MS
    profile = profile_of(state, VECTORS, NOW_MS + 400 * HOUR_MS, RULES)
    gone = {ITEMS[n] for n in range(400) if n % 5 in (2, 3)}
    assert profile.exclude_hashed is not None
    assert all(i in profile.exclude or i in profile.exclude_hashed for i in gone)


def test_a_light_user_is_kept_whole_and_small():
    state = folded(*(act(n) for n in range(20))).state
    assert len(state.acts) == 20
    assert state.long is None
    assert len(to_row(state)) < 520


def test_older_searches_go_first_then_old_event_ids_then_old_acts():
    clicks = folded(*(act(n) for n in range(35)))
    assert not clicks.is_trimmed
    state = folded(*(searched(n) for n in range(40, 43)), before=clicks.state).state
    assert [text.event_time_ms for text in state.texts] == [NOW_MS + 42 * HOUR_MS]
    assert 12 <= len(state.acts) < 35
    assert state.acts[-1] == msgspec.structs.replace(clicks.state.acts[-1], folded=True)
    assert len(state.event_ids) < len(clicks.state.event_ids)


def test_what_leaves_the_history_is_in_the_interest():
    events = [act(n) for n in range(200)]
    state = folded(*events).state
    assert len(state.acts) < 50
    everything = Rules.of(load_settings(history_items=500, max_state_bytes=65_536))
    whole = folded(*events, rules=everything).state
    assert len(whole.acts) == 200
    assert whole.long is None
    mine, my_weight = long_interest(state, VECTORS, RULES)
    exact, weight = long_interest(whole, VECTORS, RULES)
    assert mine is not None
    assert exact is not None
    cosine = mine @ exact / np.linalg.norm(mine) / np.linalg.norm(exact)
    assert cosine > 0.995
    assert my_weight == pytest.approx(weight, rel=1e-4)


def bought(n: int) -> Sourced:
    item_id = f"{20_000 + n}A"
    event = interaction(
        event_id=f"e{n}", item_id=item_id, type="purchase", event_time_ms=NOW_MS + n
    )
    return Sourced("clickstream", 0, n, NOW_MS + n, event)


def test_a_thousand_purchases_fit_and_none_is_forgotten():
    state = folded(*map(bought, range(1000))).state
    assert len(to_row(state)) <= ROOM
    profile = profile_of(state, VECTORS, NOW_MS, RULES)
    hashed = profile.exclude_hashed
    assert hashed is not None
    items = [f"{20_000 + n}A" for n in range(1000)]
    assert all(item in hashed or item in profile.exclude for item in items)
    strangers = sum(f"stranger {n}" in hashed for n in range(5000)) / 5000
    assert strangers < 0.45


def test_a_row_that_nothing_can_shorten_enough_is_stored_as_it_is():
    long_id = "\U0001f600" * 256
    result = folded(act(1), msgspec.structs.replace(act(2), event=interaction(event_id=long_id)))
    assert result.is_trimmed
    assert result.state.acts == ()
    assert result.state.activity


def test_a_cut_makes_room_for_the_next_acts():
    result, n_trimmed = folded(*map(act, range(100))), 0
    for n in range(100, 160):
        result = fold(result.state, [act(n)], VECTORS, RULES)
        n_trimmed += result.is_trimmed
    assert 0 < n_trimmed <= 60 / 3


def test_a_row_within_its_bytes_is_not_touched():
    result = folded(act(1), act(2))
    assert not result.is_trimmed
    again = fold(result.state, (), VECTORS, RULES)
    assert again.state == result.state


def test_ids_of_any_length_fit():
    ids = [f"{n:04d}" + "x" * 252 for n in range(30)]
    state = folded(*(act(n, "purchase", item_id) for n, item_id in enumerate(ids))).state
    assert len(to_row(state)) <= ROOM
    profile = profile_of(state, VECTORS, NOW_MS + 30 * HOUR_MS, RULES)
    assert profile.exclude_hashed is not None
    assert all(i in profile.exclude or i in profile.exclude_hashed for i in ids)


@pytest.mark.parametrize("n", [0, 1, 7, 60, 400])
def test_what_a_row_takes_at_most_is_no_less_than_what_it_takes(n):
    events = [act(k, ["view", "purchase", "dislike"][k % 3]) for k in range(n)]
    events += [searched(k, "靴" * 40) for k in range(n // 4)]
    result = folded(*events, rules=dataclasses.replace(RULES, max_state_bytes=65_536))
    for pending in (None, result.trigger):
        for before_ms in (0, 1, NOW_MS, NOW_MS + 10**12):
            state = msgspec.structs.replace(
                result.state, pending=pending, recommended_ms=before_ms, band="medium"
            )
            assert row_of(result.body, state) == to_row(state)
            most = longest(result.body, state, pending)
            assert len(to_row(state)) <= most
            done = msgspec.structs.replace(state, pending=None, recommended_ms=NOW_MS + 10**13)
            assert len(to_row(done)) <= most <= max(len(to_row(done)), len(to_row(state)))
