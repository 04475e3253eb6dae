"""What a single event does to a user's state."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, interaction, review, search, user

from models.packed_vector import to_four_bits
from stream.core.events import Context
from stream.core.fold import Sourced, fold
from stream.core.profiles import long_interest, profile_of, short_interest
from stream.core.user_rows import from_row, to_row
from stream.core.user_state import Act, Rules, UserState
from stream.settings import load_settings

RULES = Rules.of(load_settings())
BOOTS, HAT = np.eye(2, dtype=np.float32)
VECTORS = {"boots": BOOTS, "hat": HAT}
DAY_MS = 86_400_000


def clicked(offset=0, timestamp_ms=NOW_MS, **fields):
    event = interaction(**{"item_id": "boots", "event_id": f"e{offset}", **fields})
    return Sourced("clickstream", 0, offset, timestamp_ms, event)


def moved(sourced, offset):
    return msgspec.structs.replace(sourced, offset=offset)


def folded(*events, before=None, vectors=VECTORS, rules=RULES):
    return fold(before or UserState(), events, vectors, rules)


def long_of(state, vectors=VECTORS):
    return long_interest(state, vectors, RULES)[0]


def profile_at(state, now_ms=NOW_MS):
    return profile_of(state, VECTORS, now_ms, RULES)


def test_an_interest_halves_in_its_half_life():
    later_ms = NOW_MS + round(RULES.short_half_life_ms)
    state = folded(
        clicked(0, type="click"),
        clicked(1, later_ms, type="click", item_id="hat", event_time_ms=later_ms),
    ).state
    boots, hat = short_interest(state, VECTORS, RULES)[0]
    assert boots == pytest.approx(hat / 2)
    assert long_of(state)[0] > 0.99 * long_of(state)[1]


def test_acts_of_no_weight_are_an_interest_of_no_weight():
    state = UserState(acts=(Act(NOW_MS, "boots", "review", 0.0),))
    for vector, weight in (
        long_interest(state, VECTORS, RULES),
        short_interest(state, VECTORS, RULES),
    ):
        assert weight == 0
        assert not vector.any()


def test_a_dislike_points_away_and_is_excluded():
    state = folded(clicked(type="dislike")).state
    assert long_of(state)[0] < 0
    assert profile_at(state).exclude == {"boots"}


def test_a_dislike_is_lifted_by_a_later_favorite():
    later = {"timestamp_ms": NOW_MS + 1, "event_time_ms": NOW_MS + 1}
    state = folded(clicked(0, type="dislike"), clicked(1, type="favorite", **later)).state
    assert profile_at(state).exclude == frozenset()


def test_a_purchase_is_excluded_until_its_window_is_over():
    state = folded(clicked(type="purchase")).state
    window_ms = round(RULES.purchase_exclusion_ms)
    assert profile_at(state, NOW_MS + window_ms - 1).exclude == {"boots"}
    assert profile_at(state, NOW_MS + window_ms + 1).exclude == frozenset()


def test_a_wholesalers_purchases_are_all_excluded():
    bought = [clicked(n, type="purchase", item_id=f"item {n}") for n in range(1000)]
    profile = profile_at(folded(*bought).state)
    assert all(
        f"item {n}" in profile.exclude or f"item {n}" in profile.exclude_hashed for n in range(1000)
    )


def test_purchases_older_than_the_window_are_not_kept():
    rules = dataclasses.replace(RULES, history_items=1)
    later_ms = NOW_MS + round(RULES.purchase_exclusion_ms) + 31 * DAY_MS
    soon = {"event_time_ms": NOW_MS + DAY_MS, "timestamp_ms": NOW_MS + DAY_MS}
    late = {"event_time_ms": later_ms, "timestamp_ms": later_ms}
    first = clicked(0, type="purchase")
    then = folded(first, clicked(1, item_id="hat", **soon), rules=rules).state
    assert "boots" in profile_at(then, NOW_MS + DAY_MS).exclude_hashed
    assert profile_at(then, later_ms).exclude_hashed is None
    assert folded(clicked(2, item_id="hat", **late), before=then, rules=rules).state.faded == ()


@pytest.mark.parametrize(("rating", "sign"), [(5.0, 1), (3.0, 0), (1.0, -1), (None, 1)])
def test_a_review_weighs_by_its_rating(rating, sign):
    event = review(item_id="boots", rating=rating)
    state = folded(Sourced("reviews", 0, 0, NOW_MS, event, HAT)).state
    boots, hat = long_of(state)
    assert np.sign(boots) == sign
    assert np.sign(hat) == sign
    assert abs(hat) <= abs(boots)


def test_an_impression_without_a_click_weighs_slightly_against():
    state = folded(clicked(type="impression")).state
    assert -0.1 < long_of(state)[0] < 0
    assert state.acts == ()


def test_an_impression_and_its_click_weigh_for():
    state = folded(clicked(0, type="impression"), clicked(1, type="click")).state
    assert long_of(state)[0] > 0


def test_only_an_impression_causes_no_recommendation():
    assert folded(clicked(type="impression")).trigger is None
    trigger = folded(clicked(7, type="view")).trigger
    assert (trigger.topic, trigger.offset, trigger.event_id) == ("clickstream", 7, "e7")


def test_an_act_on_an_unknown_item_is_kept_and_counts_once_the_item_is_known():
    blind = folded(clicked(item_id="boots"), vectors={})
    assert blind.outcomes == ["unknown_item"]
    assert long_of(blind.state, {}) is None
    assert long_of(blind.state)[0] > 0
    assert folded(before=blind.state).state == blind.state


def test_an_event_time_in_the_future_is_cut_to_the_brokers():
    ahead_ms = NOW_MS + RULES.max_future_ms + 1
    result = folded(clicked(timestamp_ms=NOW_MS, event_time_ms=ahead_ms))
    assert result.n_future == 1
    assert result.state.acts[0].event_time_ms == NOW_MS


def test_an_event_time_stands_where_the_broker_has_none():
    result = folded(clicked(timestamp_ms=-1))
    assert result.n_future == 0
    assert from_row(to_row(result.state)).acts[0].event_time_ms == NOW_MS


def test_a_search_is_kept_with_its_vector_and_its_clicked_items():
    event = search(query="warm hat", clicked_item_ids=["boots"])
    state = folded(Sourced("searches", 0, 0, NOW_MS, event, HAT)).state
    profile = profile_at(state)
    assert [text.text for text in profile.texts] == ["warm hat"]
    assert [item.item_id for item in profile.items] == ["boots"]
    assert not profile.cold_start


def test_taking_an_item_touches_the_recent_ones_once():
    first, second, again = folded(
        clicked(0, item_id="boots"),
        clicked(1, item_id="hat", event_time_ms=NOW_MS + 1, timestamp_ms=NOW_MS + 1),
        clicked(2, item_id="hat", event_time_ms=NOW_MS + 2, timestamp_ms=NOW_MS + 2),
    ).touches
    assert (first.others, first.first) == ((), True)
    assert (second.others, second.first) == (("boots",), True)
    assert (again.others, again.first) == ((), False)


def test_a_user_who_wants_no_profile_has_none():
    before = folded(clicked(0, type="purchase")).state
    refusal = Sourced("users", 0, 0, NOW_MS, user(personalize=False))
    result = folded(refusal, clicked(1), before=before)
    assert result.outcomes == ["folded", "not_personalized"]
    assert result.state.long is None
    assert result.state.acts == ()
    assert result.state.faded == ()
    assert result.trigger is None


@pytest.mark.parametrize("vector_first", [True, False])
def test_a_record_and_the_vector_of_its_interests_come_in_any_order(vector_first):
    record = user(updated_ms=NOW_MS, interests=["hats"], region="north")
    both = [Sourced("users", 0, 3, NOW_MS, record), Sourced("interests", 0, 3, NOW_MS, record, HAT)]
    state = fold(UserState(), both[::-1] if vector_first else both, {}, RULES).state
    assert state.stated.interests_vector == to_four_bits(HAT)
    assert (state.stated.interests, state.stated.region) == ("hats", "north")


def test_interests_of_an_older_record_are_not_those_of_a_newer():
    old = Sourced("interests", 0, 0, NOW_MS, user(updated_ms=NOW_MS, interests=["hats"]), HAT)
    new = Sourced("users", 0, 1, NOW_MS, user(updated_ms=NOW_MS + 1, interests=["boots"]))
    state = folded(new, old).state
    assert state.stated.interests_vector == b""


def test_the_event_time_and_not_the_arrival_says_what_region_a_user_is_in():
    late = clicked(1, context=Context(region="south"), event_time_ms=NOW_MS - DAY_MS)
    state = folded(clicked(0, context=Context(region="north")), late).state
    assert profile_at(state).region == "north"


@pytest.mark.parametrize("shift", range(6))
def test_an_event_id_is_a_duplicate_only_where_it_was_kept_as_one(shift):
    kept = folded(clicked(event_id="e1")).state.event_ids
    assert len(kept) == 6
    # The same six bytes, at a border of two ids or across it.
    ids = b"\0" * shift + kept + b"\0" * (6 - shift)
    state = msgspec.structs.replace(UserState(), event_ids=ids)
    [outcome] = folded(clicked(event_id="e1"), before=state).outcomes
    assert outcome == ("folded" if shift else "duplicate")
