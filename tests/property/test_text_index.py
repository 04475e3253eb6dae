"""An index that was changed bit by bit finds what one built anew would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.items import ItemFacts
from models.text_index import TextIndex
from models.tokenise import words

titles = st.lists(st.sampled_from(["red", "boots", "tea", "cup", "茶壶"]), max_size=3).map(" ".join)
changes = st.lists(st.tuples(st.integers(0, 5), titles | st.none(), st.booleans()), max_size=15)


@settings(max_examples=40, deadline=None)
@given(changes)
def test_what_is_found_follows_from_the_last_change_of_each_item(
    changed: list[tuple[int, str | None, bool]],
) -> None:
    texts, held = TextIndex(), dict[int, str]()
    for row, title, is_refreshed in changed:
        if title is None:
            texts.drop([row])
            held.pop(row, None)
        else:
            texts.put([row], [ItemFacts(str(row), title, 1)])
            held[row] = title
        if is_refreshed:
            texts.refresh(1)
    texts.refresh()
    for query in ("red", "tea cup", "茶壶"):
        expected = {row for row, title in held.items() if {*words(query)} & {*words(title)}}
        found = texts.search(query, 10)
        assert sorted(found.rows.tolist()) == sorted(expected)
        assert (found.scores > 0).all()
        assert (found.scores <= 1).all()
