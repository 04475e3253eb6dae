from __future__ import annotations

from builders import NOW_MS

from stream.core.kept import PythonUser
from stream.core.state_cache import Known, StateCache
from stream.core.user_rows import row_of, to_body
from stream.core.user_state import Act, UserState

ANNA, BEN = (0, "anna"), (0, "ben")


def known(item_id: str) -> Known:
    state = UserState(acts=(Act(NOW_MS, item_id, "view", 0.5),))
    body = to_body(state)
    return Known(row_of(body, state), PythonUser(state, body.written))


BOOTS, TEA = known("boots"), known("tea")


def test_a_state_comes_back_for_the_row_it_was_written_as() -> None:
    cache = StateCache()
    cache.put(ANNA, BOOTS)
    assert cache.known(ANNA, bytes(bytearray(BOOTS.row))) is BOOTS


def test_a_row_that_changed_meanwhile_is_read() -> None:
    cache = StateCache()
    cache.put(ANNA, BOOTS)
    for who in (ANNA, (1, "anna")):
        assert cache.known(who, TEA.row).row == TEA.row
        assert cache.known(who, TEA.row).kept.state() == TEA.kept.state()


def test_those_longest_not_written_are_forgotten() -> None:
    cache = StateCache(limit=2)
    for who in (ANNA, BEN, ANNA, (0, "carl")):
        cache.put(who, BOOTS)
    assert len(cache) == 2
    assert cache.known(ANNA, BOOTS.row) is BOOTS
    assert cache.known(BEN, BOOTS.row) is not BOOTS
