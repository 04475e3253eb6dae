"""Pairs on their way: to whom what is told, packed and unpacked, in messages that Kafka takes."""

from __future__ import annotations

import string
from itertools import islice, product

import msgspec
import pytest
from builders import NOW_MS
from hypothesis import given
from hypothesis import strategies as st

from stream.core import pairs
from stream.core.fold import Touch
from stream.core.pairs import PART_BYTES, Partitions, pair_messages
from stream.messages import (
    BadDerived,
    Beside,
    ItemPairs,
    ItemTouch,
    PackedPairs,
    read_item_pairs,
    to_message,
)

PARTITIONS = {"boots": 3, "hat": 1, "laces": 1, "cup": 3}


def touch(item_id: str, *others: str, region: str | None = None, at_ms: int = NOW_MS) -> Touch:
    return Touch(item_id, others, 0.5, bool(others), at_ms, region)


def told(*touches: Touch, sequence: int = 7) -> list[tuple[int, ItemPairs]]:
    messages = pair_messages(touches, PARTITIONS.__getitem__, source_partition=2, sequence=sequence)
    return [(partition, read_item_pairs(raw)) for partition, raw in messages]


def test_touches_travel_to_the_partitions_of_their_item_and_of_its_neighbours() -> None:
    (one, hats), (three, boots) = told(
        touch("boots", "hat", "laces", "cup", region="north"), touch("hat", at_ms=NOW_MS + 5)
    )
    assert (one, three) == (1, 3)
    assert hats.touches == [ItemTouch("hat", [], 0.5, False, NOW_MS + 5, None)]
    assert hats.beside == [Beside("boots", ["hat", "laces"], NOW_MS)]
    assert boots.touches == [
        ItemTouch("boots", ["hat", "laces", "cup"], 0.5, True, NOW_MS, "north")
    ]
    assert boots.beside == [Beside("boots", ["cup"], NOW_MS)]
    assert {(p.source_partition, p.sequence) for p in (hats, boots)} == {(2, hats.sequence)}


ids = st.sampled_from(sorted(PARTITIONS))
touches = st.lists(
    st.builds(
        Touch,
        ids,
        st.lists(ids, max_size=4, unique=True).map(tuple),
        st.floats(0, 8, width=32),
        st.booleans(),
        st.integers(0, 2**53),
        st.none() | st.sampled_from(["north", "s\u00fcd"]),
    ),
    min_size=1,
    max_size=9,
)


@given(touches)
def test_every_touch_is_told_once_and_every_pair_from_both_sides(batch: list[Touch]) -> None:
    by_partition = told(*batch)
    found = [t for _, pairs in by_partition for t in pairs.touches]
    wanted = [ItemTouch(*msgspec.structs.astuple(t)) for t in batch]
    key = str
    assert sorted(map(key, found)) == sorted(
        str(msgspec.structs.replace(t, others=list(t.others))) for t in wanted
    )
    assert all(PARTITIONS[t.item_id] == n for n, pairs in by_partition for t in pairs.touches)
    beside = [
        (b.item_id, other, b.event_time_ms, n)
        for n, pairs in by_partition
        for b in pairs.beside
        for other in b.others
    ]
    assert sorted(beside) == sorted(
        (t.item_id, other, t.event_time_ms, PARTITIONS[other]) for t in batch for other in t.others
    )


def test_a_message_too_large_for_kafka_is_told_in_parts() -> None:
    items = [f"{n:05}{'x' * 250}" for n in range(4000)]
    batch = [touch(item, *items[n - 3 : n]) for n, item in enumerate(items) if n >= 3]

    def messages_of(sequence: int, *of: Touch) -> list[tuple[int, bytes]]:
        return pair_messages(of, lambda _: 0, source_partition=2, sequence=sequence)

    messages = [raw for _, raw in messages_of(7, *batch)]
    parts = [read_item_pairs(raw) for raw in messages]
    assert len(messages) > 1
    assert max(map(len, messages)) <= PART_BYTES
    assert [t.item_id for part in parts for t in part.touches] == items[3:]
    assert [b.others for part in parts for b in part.beside] == [list(t.others) for t in batch]
    sequences = [part.sequence for part in parts]
    assert sequences == sorted(set(sequences))
    [(_, following)] = messages_of(8, touch("boots"))
    assert read_item_pairs(following).sequence > sequences[-1]


def test_more_items_than_two_bytes_can_tell_apart() -> None:
    letters = string.ascii_letters + string.digits
    others = tuple("".join(three) for three in islice(product(letters, repeat=3), 66_000))
    batch = [
        Touch(item, half, 1.0, True, NOW_MS, None)
        for item, half in zip(("boots", "plates"), (others[:33_000], others[33_000:]), strict=True)
    ]
    (_, own), (_, beside) = pair_messages(
        batch, lambda item: len(item) == 3, source_partition=0, sequence=0
    )
    assert [tuple(t.others) for t in read_item_pairs(own).touches] == [t.others for t in batch]
    assert [tuple(t.others) for t in read_item_pairs(beside).beside] == [t.others for t in batch]


def test_a_message_that_was_not_packed_is_still_read() -> None:
    pairs = ItemPairs(
        source_partition=2,
        sequence=7,
        touches=[ItemTouch("boots", ["hat"], 0.5, True, NOW_MS, "north")],
        beside=[Beside("cup", ["boots"], NOW_MS)],
    )
    assert read_item_pairs(to_message(pairs)) == pairs


@pytest.mark.parametrize(
    "damage",
    [
        {"items": b"\xff\xff"},
        {"items": b""},
        {"items": b"\x00"},
        {"n_others": b"\x07\x00"},
        {"weights": b"123"},
        {"regions": b"\x09\x00"},
        {"beside_times_ms": b""},
    ],
    ids=str,
)
def test_columns_that_do_not_agree_are_refused(damage: dict[str, bytes]) -> None:
    [(_, raw), _] = pair_messages(
        [touch("boots", "hat")], PARTITIONS.__getitem__, source_partition=0, sequence=0
    )[::-1]
    packed = msgspec.msgpack.decode(raw, type=PackedPairs)
    broken = msgspec.structs.replace(packed, **damage)
    if damage == {"beside_times_ms": b""}:
        broken = msgspec.structs.replace(broken, beside_items=b"\x00\x00")
    with pytest.raises(BadDerived, match="unreadable pairs"):
        read_item_pairs(to_message(broken))


def test_an_items_partition_is_asked_for_once_while_it_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def partition_of(item_id: str) -> int:
        asked.append(item_id)
        return PARTITIONS[item_id]

    monkeypatch.setattr(pairs, "_REMEMBERED", 2)
    partitions = Partitions(partition_of)
    assert [partitions[item_id] for item_id in ("hat", "cup", "hat", "boots", "hat")] == [
        1, 3, 1, 3, 1,
    ]  # fmt: skip
    assert asked == ["hat", "cup", "boots", "hat"]
    assert len(partitions) == 2
