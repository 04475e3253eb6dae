"""Native code and Python give the same: rows byte for byte, outcomes, touches, triggers."""

from __future__ import annotations

import importlib
from random import Random
from struct import error as StructError
from typing import Any, cast
from zlib import crc32

import numpy as np
import pytest
from builders import NOW_MS, interaction, review, search, user
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stream.core import pairs
from stream.core.events import Context, InteractionType
from stream.core.fold import Sourced, Touch, fold
from stream.core.kept import Kept, PythonUser, is_native, read_kept, step
from stream.core.user_rows import Written, from_row, read_row, row_of, to_body
from stream.core.user_state import DAY_MS, Rules, UserState
from stream.settings import load_settings

pytestmark = pytest.mark.skipif(not is_native(), reason="native code is not built")

DIM = 70  # a block, and a part of one
KINDS: tuple[InteractionType, ...] = (
    "impression",
    "view",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "favorite",
    "purchase",
    "dislike",
)
#: Shops with ids of all the forms that rows have for them, and of none.
IDS = (
    [f"i{n}" for n in range(40)],
    [f"item-{n}" for n in range(10)],
    [f"A_{n}:{n}" for n in range(10)],
    [f"0f8fad5b-d9cb-469f-a165-7086{n:08x}" for n in range(10)],
    ["a/b", "a", "b", "+", "a=", "=", "x" * 256],
    ["ä", "a", "東京", "😀" * 30, "\x00", "\uffff"],
    [f"{n}=" for n in range(5)],
)
_rng = np.random.default_rng(3)
#: Every fourth item has none.
VECTORS = {
    item_id: _rng.standard_normal(DIM).astype(np.float32) / 4
    for item_ids in IDS
    for number, item_id in enumerate(item_ids)
    if number % 4
}


def rules(random: Random) -> Rules:
    drawn = Rules.of(
        load_settings(
            max_state_bytes=random.choice((512, 600, 1024, 1024, 4096)),
            history_items=random.choice((1, 3, 20, 50, 400)),
            history_texts=random.choice((0, 1, 3)),
            event_id_memory=random.choice((0, 2, 64, 64)),
            max_future_s=random.choice((0.0, 300.0, 1e7)),
        )
    )
    if random.random() < 0.2:
        # Settings have a least of 512, which is enough for all that is never cut.
        return Rules(**{**fields(drawn), "max_state_bytes": random.choice((60, 150, 300))})
    if random.random() < 0.2:
        weights = {kind: random.choice((0.0, -1.0, 0.3, 1.0)) for kind in drawn.weights}
        return Rules(**{**fields(drawn), "weights": weights, "cooccurrence_items": 2})
    return drawn


def fields(rules: Rules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in Rules.__slots__}


def events(random: Random, n: int) -> list[Sourced]:
    """Draw what happens to a user, mostly in order, with repeats of offsets, ids and whole acts."""
    item_ids = random.choice(IDS)
    at_ms, offset, made = NOW_MS, 0, list[Sourced]()
    spread_ms = random.choice((0, 1000, DAY_MS, 40 * DAY_MS))
    rare = random.choice((0.0, 0.0, 0.1))
    for number in range(n):
        offset += random.choice((0, 1, 1, 1, 300, 70_000))
        at_ms += random.randint(0, spread_ms) * random.choice((1, 1, 1, 1, -1, 0))
        fields = {"event_id": f"e{random.choice((number, number, number, 0))}"}
        fields["event_time_ms"] = max(at_ms, 1)
        timestamp_ms = max(random.choice((at_ms, at_ms, NOW_MS, 0, -1)), -1)
        item_id = random.choice(item_ids)
        if random.random() < rare:
            made.append(rarity(random, offset, item_id, fields))
            continue
        event = interaction(
            item_id=item_id,
            type=random.choice(KINDS),
            price=random.choice((None, 0.0, 19.99, 1e300)),
            quantity=random.choice((None, 1.0, 3.0)),
            context=random.choice(
                (None, Context(), Context(region="eu"), Context(region="ä" * random.randint(0, 70)))
            ),
            **fields,
        )
        made.append(Sourced("clickstream", 7, offset, timestamp_ms, event))
    return made


def rarity(random: Random, offset: int, item_id: str, fields: dict[str, Any]) -> Sourced:
    vector = _rng.standard_normal(DIM).astype(np.float32)
    kind = random.choice(("search", "review", "user"))
    if kind == "search":
        event = search(query="boots", clicked_item_ids=[item_id], **fields)
        return Sourced("searches", 7, offset, NOW_MS, event, vector)
    if kind == "review":
        event = review(item_id=item_id, rating=random.choice((None, 1.0, 4.5)), **fields)
        return Sourced("reviews", 7, offset, NOW_MS, event, vector)
    stated = user(
        updated_ms=fields["event_time_ms"],
        interests=["boots"],
        region=random.choice((None, "asia")),
        personalize=random.random() < 0.9,
    )
    return Sourced("interests", 7, offset, NOW_MS, stated, vector)


class Reference:
    """A user as Python folds it."""

    def __init__(self) -> None:
        self.state, self.written = UserState(), cast(Written | None, None)

    def row(self) -> bytes:
        body = to_body(self.state, self.written)
        self.written = body.written
        return row_of(body, self.state)


def same_fold(
    kept: Kept, reference: Reference, batch: list[Sourced], vectors: Any, rules: Rules
) -> Kept:
    """Fold with both; return what native code made of it."""
    after = step(kept, batch, vectors, rules)
    folded = fold(reference.state, batch, vectors, rules, reference.written)
    assert after.outcomes == folded.outcomes
    assert after.touches == folded.touches
    assert after.trigger == folded.trigger
    assert after.n_future == folded.n_future
    assert after.is_trimmed == folded.is_trimmed
    assert (after.searches, after.reviews) == (folded.searches, folded.reviews)
    reference.state, reference.written = folded.state, folded.body.written
    assert after.kept.activity == folded.state.activity
    assert after.kept.state() == folded.state
    return after.kept


def same_history(seed: int) -> int:
    """Compare what a history gives in batches, from memory and from rows; return rows compared."""
    random = Random(seed)
    limits, reference, n_rows = rules(random), Reference(), 0
    kept: Kept = PythonUser(UserState())
    left = events(random, random.choice((3, 20, 60)))
    known = VECTORS if random.random() < 0.8 else {}
    while left:
        n = random.randint(1, random.choice((1, 3, 30)))
        batch, left = left[:n], left[n:]
        before = kept.copy().row()
        kept, loaded = same_fold(kept, reference, batch, known, limits), kept
        assert loaded.row() == before
        note(random, kept, reference)
        row = kept.row()
        assert row == reference.row()
        assert row == kept.row()
        assert read_kept(row).state() == from_row(row)
        assert read_kept(row).row() == row
        if random.random() < 0.3:
            kept = read_kept(row)
            reference.state, reference.written = read_row(row)
        if random.random() < 0.1:
            known = VECTORS
        n_rows += 1
    return n_rows


def note(random: Random, kept: Kept, reference: Reference) -> None:
    """Note what recommendations and assessments note."""
    what = random.choice(("due", "answered", "band", "nothing"))
    trigger = fold(UserState(), [events(random, 1)[0]], {}, rules(random)).trigger
    if what == "due":
        kept.pending = trigger
        reference.state = replace(reference.state, pending=trigger)
    elif what == "answered":
        kept.pending, kept.recommended_ms = None, NOW_MS
        reference.state = replace(reference.state, pending=None, recommended_ms=NOW_MS)
    elif what == "band":
        kept.band = "high"
        reference.state = replace(reference.state, band="high")


@given(st.integers(0, 2**32))
def test_native_code_gives_the_same_as_python(seed: int) -> None:
    assert same_history(seed)


@given(
    st.lists(
        st.builds(
            Touch,
            st.sampled_from(IDS[0]),
            st.lists(st.sampled_from([*IDS[0], *IDS[5]]), max_size=20, unique=True).map(tuple),
            st.floats(-8, 8, width=32),
            st.booleans(),
            st.integers(0, 2**53),
            st.none() | st.sampled_from(["eu", "süd", ""]),
        ),
        max_size=12,
    ),
    st.integers(1, 9),
)
def test_what_touches_tell_is_the_same(touches: list[Touch], n_partitions: int) -> None:
    assert_told_alike(touches, n_partitions)


def test_more_others_than_a_byte_or_two_can_count_are_told_alike() -> None:
    others = tuple(f"o{number}" for number in range(66_000))
    halves = others[:33_000], others[33_000:]
    assert_told_alike([Touch("tea", of_it, 1.0, True, NOW_MS, None) for of_it in halves], 2)
    for way in (pairs.tell, native_tell()):
        with pytest.raises((OverflowError, StructError)):
            way([Touch("tea", others, 1.0, True, NOW_MS, None)], len)


def assert_told_alike(touches: list[Touch], n_partitions: int) -> None:
    def partition_of(item_id: str) -> int:
        return crc32(item_id.encode()) % n_partitions

    assert native_tell()(touches, partition_of) == pairs.tell(touches, partition_of)


def native_tell() -> Any:
    """Only where it is built can it be imported."""
    return importlib.import_module("stream.core._native").tell
