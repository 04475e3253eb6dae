"""What holds for the fold of a user's events, whatever they are."""

from __future__ import annotations

import msgspec
import numpy as np
from builders import NOW_MS, interaction, review, search
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core.fold import Sourced, fold
from stream.core.profiles import long_interest, short_interest
from stream.core.user_rows import from_row, to_row
from stream.core.user_state import Rules, UserState
from stream.settings import load_settings

DIM = 8
ITEMS = [f"i{n}" for n in range(6)]
#: Memories that hold whatever ``histories`` draws.
RULES = Rules.of(load_settings(history_texts=20, max_state_bytes=4096))
_rng = np.random.default_rng(5)
VECTORS = {
    item: (v / np.linalg.norm(v)).astype(np.float32)
    for item, v in zip(ITEMS, _rng.standard_normal((len(ITEMS), DIM)), strict=True)
}
TYPES = ["impression", "view", "click", "add_to_cart", "remove_from_cart", "favorite", "purchase"]


def sourced(number: int, kind: str, item: str, at_ms: int, rating: float) -> Sourced:
    if kind == "search":
        event = search(event_id=f"e{number}", query=f"query {item}", event_time_ms=at_ms)
        return Sourced("searches", 0, number, NOW_MS * 2, event, VECTORS[item])
    if kind == "review":
        event = review(event_id=f"e{number}", item_id=item, rating=rating, event_time_ms=at_ms)
        return Sourced("reviews", 0, number, NOW_MS * 2, event, VECTORS[item])
    event = interaction(event_id=f"e{number}", item_id=item, type=kind, event_time_ms=at_ms)
    return Sourced("clickstream", 0, number, NOW_MS * 2, event)


@st.composite
def histories(draw: st.DrawFn) -> list[Sourced]:
    """Events of distinct offsets and distinct times, within the bounds of the memories."""
    n = draw(st.integers(1, 25))
    times = draw(st.lists(st.integers(NOW_MS, NOW_MS + 10**9), min_size=n, max_size=n, unique=True))
    kinds = st.sampled_from([*TYPES, "dislike", "search", "review"])
    return [
        sourced(number, draw(kinds), draw(st.sampled_from(ITEMS)), at_ms, draw(st.floats(1, 5)))
        for number, at_ms in enumerate(times)
    ]


def in_any_order(events: list[Sourced]) -> list[Sourced]:
    """The same events as if they had arrived in this order: offsets follow arrival."""
    return [moved(event, number) for number, event in enumerate(events)]


def moved(event: Sourced, offset: int) -> Sourced:
    return Sourced(
        event.source, event.partition, offset, event.timestamp_ms, event.event, event.vector
    )


def mass(events: list[Sourced]) -> float:
    """The weights of what is not kept one by one: impressions and the texts of reviews."""
    impression = abs(RULES.weights["impression"])
    return sum(
        0.5 if event.source == "reviews" else impression
        for event in events
        if event.source == "reviews" or getattr(event.event, "type", "") == "impression"
    )


def assert_same(one: UserState, other: UserState, rounded: float) -> None:
    """Equal to the bit, but for ``rounded``: the mass in the sum, each addition of which may err
    by two hundredths of it."""
    mine, my_weight = long_interest(one, VECTORS, RULES)
    theirs, their_weight = long_interest(other, VECTORS, RULES)
    assert (mine is None) == (theirs is None)
    if mine is not None:
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=0.05 * rounded + 1e-6)
        np.testing.assert_allclose(my_weight, their_weight, rtol=1e-5, atol=1e-5)
    for my_part, their_part in zip(
        short_interest(one, VECTORS, RULES), short_interest(other, VECTORS, RULES), strict=True
    ):
        assert np.array_equal(my_part, their_part)
    assert one.faded == other.faded
    assert one.acts == other.acts
    assert one.texts == other.texts
    assert one.activity is not None
    assert other.activity is not None
    for mine_n, theirs_n in zip(one.activity, other.activity, strict=True):
        np.testing.assert_allclose(mine_n, theirs_n, rtol=1e-9)


@given(histories(), st.randoms(use_true_random=False))
def test_arrival_order_does_not_matter(events, random):
    shuffled = random.sample(events, len(events))
    assert_same(
        fold(UserState(), in_any_order(events), VECTORS, RULES).state,
        fold(UserState(), in_any_order(shuffled), VECTORS, RULES).state,
        mass(events),
    )


@given(histories(), st.randoms(use_true_random=False))
def test_acts_and_searches_in_any_order_give_the_same_bytes_but_for_activitys_rounding(
    events, random
):
    kept = [event for event in events if mass([event]) == 0]
    shuffled = random.sample(kept, len(kept))
    rows = [
        to_row(
            msgspec.structs.replace(
                fold(UserState(), in_any_order(order), VECTORS, RULES).state,
                activity=b"",
                event_ids=b"",
                offsets=(),
            )
        )
        for order in (kept, shuffled)
    ]
    assert rows[0] == rows[1]


@given(histories())
def test_the_same_events_in_the_same_batches_give_the_same_bytes(events):
    rules = Rules.of(load_settings(history_items=3, history_texts=1, event_id_memory=4))
    first, second = (
        to_row(
            fold(
                fold(UserState(), events[:9], VECTORS, rules).state, events[9:], VECTORS, rules
            ).state
        )
        for _ in range(2)
    )
    assert first == second


@given(histories())
def test_a_short_memory_costs_the_interests_no_more_than_rounding(events):
    short_memory = Rules.of(load_settings(history_items=3, history_texts=1))
    state = UserState()
    for event in events:
        state = fold(state, [event], VECTORS, short_memory).state
    exact = fold(UserState(), events, VECTORS, RULES).state
    mine, my_weight = long_interest(state, VECTORS, RULES)
    theirs, their_weight = long_interest(exact, VECTORS, RULES)
    if theirs is not None:
        total = sum(abs(act.weight) for act in exact.acts) + mass(events) + len(exact.texts)
        np.testing.assert_allclose(mine, theirs, atol=0.02 * total * (1 + len(events)) ** 0.5)
        np.testing.assert_allclose(my_weight, their_weight, rtol=1e-4, atol=1e-4)


@given(histories())
def test_folding_twice_is_the_same_as_once(events):
    once = fold(UserState(), events, VECTORS, RULES)
    twice = fold(once.state, events, VECTORS, RULES)
    assert twice.state == once.state
    assert set(twice.outcomes) == {"repeat"}
    assert not twice.touches
    assert twice.trigger is None


@given(histories())
def test_an_event_id_that_comes_again_at_a_new_offset_changes_nothing(events):
    once = fold(UserState(), events, VECTORS, RULES).state
    again = [moved(event, 1000 + number) for number, event in enumerate(events)]
    resent = fold(once, again, VECTORS, RULES)
    assert set(resent.outcomes) == {"duplicate"}
    assert msgspec.structs.replace(resent.state, offsets=once.offsets) == once


@given(histories(), st.data())
def test_where_a_batch_ends_does_not_matter(events, data):
    cut = data.draw(st.integers(0, len(events)))
    first = fold(UserState(), events[:cut], VECTORS, RULES).state
    assert_same(
        fold(from_row(to_row(first)), events[cut:], VECTORS, RULES).state,
        fold(UserState(), events, VECTORS, RULES).state,
        mass(events),
    )


@given(histories())
def test_an_item_is_taken_beside_those_that_were_taken_last(events):
    touches = fold(UserState(), events, VECTORS, RULES).touches
    last_ms: dict[str, int] = {}
    for touch in touches:
        latest_first = sorted(last_ms, key=lambda item: (last_ms[item], item), reverse=True)
        assert touch.first == (touch.item_id not in last_ms)
        assert touch.others == (tuple(latest_first) if touch.first else ())
        last_ms[touch.item_id] = max(touch.event_time_ms, last_ms.get(touch.item_id, 0))


@given(histories())
def test_what_an_act_says_of_items_does_not_depend_on_where_a_batch_ends(events):
    state, touches = UserState(), []
    for event in events:
        folded = fold(from_row(to_row(state)), [event], VECTORS, RULES)
        state, touches = folded.state, touches + folded.touches
    assert touches == fold(UserState(), events, VECTORS, RULES).touches


@given(histories())
def test_items_that_arrive_after_the_acts_are_folded_as_if_they_had_been_there(events):
    acts = [e for e in events if not (e.source == "clickstream" and e.event.type == "impression")]
    blind = fold(UserState(), acts, {}, RULES).state
    assert_same(
        fold(blind, [], VECTORS, RULES).state,
        fold(UserState(), acts, VECTORS, RULES).state,
        mass(acts),
    )


@given(histories())
@settings(max_examples=50)
def test_a_row_gives_back_the_state(events):
    state = fold(UserState(), events, VECTORS, RULES).state
    assert from_row(to_row(state)) == state
