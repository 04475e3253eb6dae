from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from builders import NOW_MS

from stream.core.fold import Touch
from stream.core.item_rows import BadRow, from_row, ledger_from_row, ledger_to_row, to_row
from stream.core.item_state import (
    CountingRules,
    ItemState,
    PairsLedger,
    admit,
    fold,
    fold_batch,
    is_news,
    to_neighbours,
    told,
    touches_by_item,
)
from stream.core.pairs import pair_messages
from stream.messages import Beside, ItemPairs, ItemTouch, read_item_pairs

DAY_MS = 86_400_000
RULES = CountingRules(
    cooccurrence_half_life_ms=180 * DAY_MS, popularity_half_life_ms=2 * DAY_MS, neighbours_kept=4
)


def touch(item_id: str = "boots", *others: str, **fields: object) -> ItemTouch:
    base = {"weight": 1.0, "first": True, "event_time_ms": NOW_MS, "region": None}
    return ItemTouch(item_id=item_id, others=list(others), **{**base, **fields})  # type: ignore[arg-type]


def pairs(
    sequence: int, *touches: ItemTouch, beside: Sequence[Beside] = (), source_partition: int = 0
) -> ItemPairs:
    return ItemPairs(
        source_partition=source_partition,
        sequence=sequence,
        touches=list(touches),
        beside=list(beside),
    )


def folded(*touches: ItemTouch, rules: CountingRules = RULES) -> ItemState:
    return fold(ItemState("boots"), list(enumerate(touches)), rules)


def test_users_who_took_both_items_are_counted_alike_in_both_rows() -> None:
    messages = [
        (offset, read_item_pairs(raw))
        for offset, recent in enumerate([("hat",), ("hat", "laces"), ()])
        for _, raw in pair_messages(
            [Touch("boots", recent, 1.0, True, NOW_MS, None)],
            lambda _: 0,
            source_partition=0,
            sequence=offset,
        )
    ]
    states = fold_batch({}, touches_by_item(messages), RULES)
    assert states["boots"].n_users == 3
    assert states["boots"].neighbours == {"hat": 2, "laces": 1}
    assert states["hat"].neighbours == {"boots": 2}
    assert states["hat"].n_users == 0  # its own users are counted by their acts on it


def test_a_pair_count_halves_in_its_half_life_and_popularity_in_its_own() -> None:
    state = folded(
        touch("boots", "hat", region="north"),
        touch("boots", event_time_ms=NOW_MS + 2 * DAY_MS, weight=0.0),
    )
    assert state.as_of_ms == NOW_MS + 2 * DAY_MS
    assert state.neighbours["hat"] == pytest.approx(2 ** (-2 / 180))
    assert state.n_users == pytest.approx(1 + 2 ** (-2 / 180))
    assert state.popularity == pytest.approx(0.5)
    assert state.regions == {"north": pytest.approx(0.5)}
    # The same acts, with the half-life of pairs: what is usual.
    assert state.lasting == pytest.approx(2 ** (-2 / 180))
    assert to_neighbours(state, RULES).lasting == state.lasting


def test_a_late_touch_counts_with_its_age() -> None:
    state = folded(touch("boots"), touch("boots", event_time_ms=NOW_MS - 2 * DAY_MS))
    assert state.as_of_ms == NOW_MS
    assert state.popularity == pytest.approx(1.5)


def test_a_replayed_touch_is_not_counted_twice() -> None:
    state = fold(ItemState("boots"), [(5, touch("boots", "hat"))], RULES)
    again = fold(state, [(4, touch("boots", "hat")), (5, touch("boots", "hat"))], RULES)
    assert again is state
    assert fold(state, [(5, touch()), (6, touch())], RULES).n_users == pytest.approx(2)


def test_only_the_largest_counts_are_published() -> None:
    touches = [touch("boots", *others) for others in ("abcd", "abcd", "abce", "abce", "abe")]
    published = to_neighbours(folded(*touches), RULES).neighbours
    assert published == [("a", 5), ("b", 5), ("c", 4), ("e", 3)]


def test_a_newcomer_has_room_to_grow_into_a_full_list() -> None:
    full = [touch("boots", *"abcd")] * 2
    state = folded(*full, *[touch("boots", "new")] * 3)
    assert to_neighbours(state, RULES).neighbours[0] == ("new", 3)


def test_a_row_counts_twice_as_many_neighbours_as_are_published() -> None:
    touches = [touch("boots", *"abcdefghij"), touch("boots", *"cdefghij")]
    assert folded(*touches).neighbours == dict.fromkeys("cdefghij", 2)


def test_only_the_largest_regions_are_kept() -> None:
    rules = CountingRules(1.0, 1.0, regions_kept=1)
    state = folded(touch(region="north"), touch(region="south", weight=2.0), rules=rules)
    assert state.regions == {"south": 2.0}


def test_neighbours_are_published_largest_first() -> None:
    state = folded(touch("boots", "hat", region="north"), touch("boots", "hat", "laces"))
    message = to_neighbours(state, RULES)
    assert message.neighbours == [("hat", 2.0), ("laces", 1.0)]
    assert (message.item_id, message.n_users, message.as_of_ms) == ("boots", 2.0, NOW_MS)
    assert (message.popularity, message.regions) == (2.0, {"north": 1.0})


def test_what_was_counted_often_is_told_again_only_once_it_has_grown_or_it_is_long_ago() -> None:
    rules = replace(RULES, told_share=0.05, told_after_ms=60_000)

    def more(state: ItemState, n: int, **fields: Any) -> ItemState:
        touches = [
            (state.offset + 1 + i, touch("boots", "hat", weight=0.1, **fields)) for i in range(n)
        ]
        return fold(state, touches, rules)

    few = more(ItemState("boots"), 1)
    assert is_news(few, rules)
    assert is_news(more(told(few), 1), rules)
    many = told(more(few, 199))
    assert not is_news(many, rules)
    assert not is_news(more(many, 10), rules)
    assert is_news(more(many, 11), rules)
    # Slowly growing counts are told in the end too, and what is popular by its weights.
    assert is_news(more(more(many, 6), 6), rules)
    assert not is_news(more(many, 1, event_time_ms=NOW_MS + 59_999), rules)
    assert is_news(more(many, 1, event_time_ms=NOW_MS + 60_000), rules)
    beside = fold(many, [(many.offset + 1, touch("boots", first=False, weight=1.2))], rules)
    assert is_news(beside, rules)
    assert from_row(to_row(more(many, 3))) == more(many, 3)


def test_a_batch_published_again_is_dropped_and_the_next_is_not() -> None:
    first, again, other = pairs(1), pairs(1), pairs(1, source_partition=1)
    ledger, kept = admit(PairsLedger(), [(10, first), (11, again), (12, other)])
    assert kept == [(10, first), (12, other)]
    assert admit(ledger, [(13, first)])[1] == []
    assert len(admit(ledger, [(14, pairs(2))])[1]) == 1


def test_rows_are_read_back() -> None:
    state = folded(touch("boots", "hat", region="north"))
    assert from_row(to_row(state)) == state
    ledger = PairsLedger({0: 4, 7: 1})
    assert ledger_from_row(ledger_to_row(ledger)) == ledger


@pytest.mark.parametrize("missing", [3, 4])
def test_a_row_of_an_older_worker_is_read_without_what_it_did_not_count(missing: int) -> None:
    state = folded(touch("boots", "hat"))
    columns = msgspec.msgpack.decode(to_row(state)[1:])
    raw = to_row(state)[:1] + msgspec.msgpack.encode(columns[:-missing])
    older = replace(state, untold_taken=0.0, untold_popular=0.0)
    assert from_row(raw) == (older if missing == 3 else replace(older, lasting=0.0))
    # What is known of it nobody knows, so it is told.
    assert is_news(older, replace(RULES, told_share=0.05, told_after_ms=60_000))


def test_a_full_row_is_compact() -> None:
    rules = CountingRules(1.0, 1.0, neighbours_kept=256)
    state = folded(touch("boots", *(f"B{n:09d}" for n in range(256))), rules=rules)
    assert len(to_row(state)) < 256 * 16


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x09" + to_row(ItemState("boots"))[1:], id="another version"),
        pytest.param(to_row(ItemState("boots"))[:-2], id="cut short"),
        pytest.param(
            to_row(folded(touch("boots", "hat"))).replace(b"\xc4\x04", b"\xc4\x03", 1)[:-1],
            id="a count cut short",
        ),
    ],
)
def test_a_damaged_row_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRow):
        from_row(raw)
