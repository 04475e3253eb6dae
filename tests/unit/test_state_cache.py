from __future__ import annotations

from builders import NOW_MS

from stream.core.state_cache import StateCache
from stream.core.user_rows import to_row
from stream.core.user_state import Act, UserState

ANNA, BEN = (0, "anna"), (0, "ben")
BOOTS = UserState(acts=(Act(NOW_MS, "boots", "view", 0.5),))
TEA = UserState(acts=(Act(NOW_MS, "tea", "view", 0.5),))


def test_a_state_comes_back_for_the_row_it_was_written_as() -> None:
    cache = StateCache()
    cache.put(ANNA, to_row(BOOTS), BOOTS)
    assert cache.state_of(ANNA, to_row(BOOTS)) is BOOTS


def test_a_row_that_changed_meanwhile_is_read() -> None:
    cache = StateCache()
    cache.put(ANNA, to_row(BOOTS), BOOTS)
    assert cache.state_of(ANNA, to_row(TEA)) == TEA
    assert cache.state_of(ANNA, None) == UserState()
    assert cache.state_of((1, "anna"), to_row(TEA)) == TEA


def test_those_longest_not_written_are_forgotten() -> None:
    cache = StateCache(limit=2)
    rows = {who: to_row(BOOTS) for who in (ANNA, BEN, (0, "carl"))}
    cache.put(ANNA, rows[ANNA], BOOTS)
    cache.put(BEN, rows[BEN], BOOTS)
    cache.put(ANNA, rows[ANNA], BOOTS)
    cache.put((0, "carl"), rows[0, "carl"], BOOTS)
    assert len(cache) == 2
    assert cache.state_of(ANNA, rows[ANNA]) is BOOTS
    assert cache.state_of(BEN, rows[BEN]) is not BOOTS
