import pytest

from stream.core.user_state import Act, Stated, TextAct, UserState
from stream.explain import Explanation, because, lines

NOW_MS = 1_760_000_000_000
TITLES = {"i1": "Red boots", "i2": "紫砂壶"}


def explained(state: UserState | None = None, recommendation: dict | None = None) -> str:
    return "\n".join(lines(Explanation("u1", state, recommendation, TITLES)))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ({"kind": "similar_to_item", "item_id": "i1"}, "similar to “Red boots”"),
        ({"kind": "taken_together", "item_id": "i2"}, "often taken with “紫砂壶”"),
        ({"kind": "taken_together", "item_id": "gone"}, "often taken with “gone”"),
        ({"kind": "matches_search", "query": "boots"}, "matches the search “boots”"),
        ({"kind": "matches_interest", "text": "茶"}, "matches the stated interest “茶”"),
        ({"kind": "popular"}, "popular now"),
        ({"kind": "a kind of next year"}, "a kind of next year"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_reason_reads_as_words(reason, words):
    assert because(reason, lambda item_id: TITLES.get(item_id, item_id)) == words


def test_of_a_stranger_nothing_is_known():
    assert explained() == "Nothing is known of u1.\nNo recommendation is out."


def test_what_is_known_is_told_newest_first_with_titles():
    state = UserState(
        acts=(
            Act(NOW_MS - 9, "i2", "purchase", 1.5),
            Act(NOW_MS, "i1", "view", 0.3),
            Act(NOW_MS + 1000, "later", "click", 0.5),
        ),
        texts=(TextAct(NOW_MS, "warm boots", b"\0\0", 0.8),),
        stated=Stated(region="eu", interests="tea"),
        band="high",
    )
    told = explained(state)
    assert told.index("click            later  (item not known)") < told.index("Red boots")
    for part in ("region: eu", "stated interests: tea", "“warm boots”", "bought: 紫砂壶", "high"):
        assert part in told


def test_a_long_history_is_cut_and_says_so():
    acts = tuple(Act(NOW_MS + n, "i1", "view", 0.3, True) for n in range(25))
    told = explained(UserState(acts=acts))
    assert told.count("Red boots") == 10
    assert "and 15 earlier acts" in told


def test_a_user_who_wants_no_profile_is_told_so():
    assert "nothing is kept" in explained(UserState(stated=Stated(personalize=False)))


def test_each_item_of_the_last_list_comes_with_its_reasons_and_their_weight():
    reasons = [
        {"kind": "similar_to_item", "item_id": "i1", "weight": 0.75},
        {"kind": "popular", "weight": 0.25},
    ]
    told = explained(
        recommendation={
            "generated_ms": NOW_MS,
            "trigger": {"event_id": "e9", "topic": "clickstream"},
            "cold_start": True,
            "items": [{"rank": 1, "item_id": "i2", "score": 0.5, "reasons": reasons}],
        }
    )
    assert "after event e9 of clickstream (cold start)" in told
    assert "1. 紫砂壶  0.500  similar to “Red boots” (75%); popular now (25%)" in told
