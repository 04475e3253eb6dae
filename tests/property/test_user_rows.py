"""What holds for every row and every id."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import texts

from models.activity import Activity
from stream.core.packed_ids import pack_ids, unpack_ids
from stream.core.user_rows import BadRow, from_row, has_pending, row_of, to_body, to_row
from stream.core.user_state import Act, Faded, Interest, Stated, TextAct, UserState
from stream.messages import Trigger

times = st.integers(0, 10**14)
words = st.text(texts, min_size=1, max_size=12)
weights = st.floats(-100, 100, width=32)
item_ids = (
    words
    | st.uuids().map(str)
    | st.from_regex(r"[A-Z0-9]{10}", fullmatch=True)
    | st.from_regex(r"[a-z]{1,3}[-_+/.:=\n][0-9]{1,4}", fullmatch=True)
)
kinds = st.sampled_from(["view", "click", "purchase", "dislike", "review"])
triggers = st.builds(
    Trigger,
    topic=st.sampled_from(["clickstream", "searches", "reviews", "users"]),
    partition=st.integers(0, 1000),
    offset=st.integers(0, 2**63 - 1),
    event_id=words,
    event_time_ms=times,
)
interests = st.builds(
    Interest, st.binary(max_size=20), st.binary(max_size=3), weights, weights, times
)
activities = st.builds(
    Activity,
    *[times] * 4,
    *[st.integers(0, 2**40)] * 5,
    *[st.floats(-1e9, 1e9)] * 4,
    st.integers(0, 2**512 - 1),
)
states = st.builds(
    UserState,
    offsets=st.tuples(*[st.integers(-1, 2**63 - 1)] * 5),
    long=st.none() | interests,
    acts=st.lists(st.builds(Act, times, item_ids, kinds, weights, st.booleans()), max_size=30).map(
        lambda acts: tuple(sorted(acts))
    ),
    texts=st.lists(
        st.builds(TextAct, times, words, st.binary(max_size=9), weights, st.booleans()), max_size=3
    ).map(tuple),
    faded=st.lists(
        st.builds(Faded, st.integers(-1, 900), st.just(24), st.binary(max_size=9)), max_size=3
    ).map(tuple),
    activity=st.none() | activities,
    event_ids=st.binary(max_size=30),
    stated=st.just(Stated())
    | st.builds(Stated, times, st.booleans(), words, words, words, st.binary(max_size=9)),
    seen_region=st.none() | words,
    seen_region_ms=times,
    pending=st.none() | triggers,
    recommended_ms=times,
    band=st.sampled_from([None, "low", "medium", "high"]),
)


@given(states)
@example(UserState(activity=Activity(satisfaction=-0.0)))
def test_a_row_gives_back_the_state_whatever_it_is(state):
    row = to_row(state)
    assert from_row(row) == state
    assert has_pending(row) == (state.pending is not None)


@given(states, states)
def test_a_row_gives_back_the_state_whatever_it_began_with(before, state):
    longer = msgspec.structs.replace(
        before, acts=(*before.acts, *state.acts), offsets=state.offsets, long=state.long
    )
    for after in (state, longer, msgspec.structs.replace(longer, faded=state.faded)):
        body = to_body(after, to_body(before).written)
        assert from_row(row_of(body, after)) == after


@given(st.lists(item_ids, min_size=1, max_size=30))
@example(["x", "a="])
@example(["ab=="])
def test_ids_come_back_whatever_they_are(ids):
    assert unpack_ids(pack_ids(ids)) == ids


@given(st.lists(st.uuids().map(str), min_size=1, max_size=9))
def test_a_uuid_takes_sixteen_bytes(ids):
    assert len(pack_ids(ids)) == 1 + 16 * len(ids)


@given(states, st.data())
def test_a_damaged_row_is_read_or_refused_and_nothing_else(state, data):
    row = bytearray(to_row(state))
    at = data.draw(st.integers(1, len(row) - 1))
    row[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(row)))
    for damaged in (bytes(row), bytes(row[:cut])):
        with suppress(BadRow):
            assert isinstance(from_row(damaged), UserState)


@given(st.binary(max_size=60))
def test_any_bytes_behind_a_version_are_read_or_refused(junk):
    for version in (b"\x01", b"\x02\x00", b"\x03\x00"):
        with suppress(BadRow):
            assert isinstance(from_row(version + junk), UserState)


def test_the_version_before_wrote_a_list():
    # Whatever a list of the first version holds is no reason to fall over.
    row = b"\x01" + msgspec.msgpack.encode([[1, 2], None, None, []])
    assert from_row(row).offsets == (1, 2)
