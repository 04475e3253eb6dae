from __future__ import annotations

from builders import NOW_MS

from models.profile import Reason, RecommendedItem
from stream.agents.recommending import DueUsers
from stream.core.recommend import is_due, recommendation_id, to_recommendation
from stream.messages import ModelInfo, Recommendation, Trigger

TRIGGER = Trigger(topic="searches", partition=1, offset=7, event_id="s", event_time_ms=NOW_MS - 5)
MODEL = ModelInfo(encoder="e", index_version="1", ranker="r")


def recommendation(*items: RecommendedItem, trigger: Trigger = TRIGGER) -> Recommendation:
    return to_recommendation(
        "u1", trigger, list(items), cold_start=False, now_ms=NOW_MS, ttl_ms=1000, model=MODEL
    )


def test_users_come_when_their_time_has_come_earliest_first() -> None:
    due = DueUsers()
    due.put(0, "late", 300)
    due.put(1, "early", 100)
    due.put(0, "middle", 200)
    assert due.pop(99, 9) == []
    assert due.pop(200, 9) == [(1, "early"), (0, "middle")]
    assert due.pop(1000, 9) == [(0, "late")]
    assert due.pop(1000, 9) == []


def test_a_user_put_off_twice_comes_once_at_the_earlier_time() -> None:
    due = DueUsers()
    due.put(0, "u1", 300)
    due.put(0, "u1", 100)
    due.put(0, "u1", 200)
    assert due.pop(100, 9) == [(0, "u1")]
    assert due.pop(1000, 9) == []


def test_a_user_may_be_put_off_again_after_having_come() -> None:
    due = DueUsers()
    due.put(0, "u1", 100)
    due.pop(100, 9)
    due.put(0, "u1", 300)
    assert due.pop(200, 9) == []
    assert due.pop(300, 9) == [(0, "u1")]


def test_when_the_clock_is_set_back_everyones_time_has_come() -> None:
    due = DueUsers()
    due.pop(NOW_MS, 9)
    due.put(0, "u1", NOW_MS + 100)
    due.put(0, "u2", NOW_MS + 200)
    assert due.pop(NOW_MS - 86_400_000, 9) == [(0, "u1"), (0, "u2")]
    due.put(0, "u1", NOW_MS - 86_399_000)
    assert due.pop(NOW_MS - 86_399_500, 9) == []
    assert due.pop(NOW_MS - 86_399_000, 9) == [(0, "u1")]


def test_those_over_the_limit_come_next_though_the_clock_was_set_back() -> None:
    due = DueUsers()
    due.pop(NOW_MS, 9)
    for n in range(3):
        due.put(0, f"u{n}", NOW_MS + n)
    assert due.pop(NOW_MS - 86_400_000, 2) == [(0, "u0"), (0, "u1")]
    assert len(due) == 1
    assert due.pop(NOW_MS - 86_399_999, 2) == [(0, "u2")]


def test_the_same_name_in_two_partitions_is_two_users() -> None:
    due = DueUsers()
    due.put(0, "u1", 100)
    due.put(1, "u1", 100)
    due.drop({0})
    assert due.pop(100, 9) == [(1, "u1")]


def test_a_dropped_partition_that_comes_back_begins_anew() -> None:
    due = DueUsers()
    due.put(0, "u1", 100)
    due.drop({0})
    due.put(0, "u1", 500)
    assert due.pop(499, 9) == []
    assert due.pop(500, 9) == [(0, "u1")]


def test_a_recommendation_is_due_once_the_interval_is_over() -> None:
    assert not is_due(NOW_MS, NOW_MS, 100)
    assert not is_due(NOW_MS, NOW_MS + 99, 100)
    assert is_due(NOW_MS, NOW_MS + 100, 100)
    assert is_due(NOW_MS, NOW_MS, 0)


def test_a_last_recommendation_of_a_clock_that_ran_ahead_does_not_silence_the_user() -> None:
    assert is_due(NOW_MS + 10**9, NOW_MS, 100)


def test_the_same_cause_gives_the_same_id_and_another_cause_another() -> None:
    places = [("searches", 1, 7), ("searches", 1, 8), ("searches", 2, 7), ("clickstream", 1, 7)]
    ids = {
        recommendation_id(
            Trigger(topic=t, partition=p, offset=o, event_id="x", event_time_ms=NOW_MS)
        )
        for t, p, o in places
    }
    assert len(ids) == 4
    assert recommendation_id(TRIGGER) in ids


def test_the_message_holds_the_list_as_it_is() -> None:
    first = RecommendedItem("a", 1, 0.5, "short_interest", [Reason("matches_search", 0.5)])
    other = RecommendedItem("b", 2, 0.1, "popular", [Reason("popular", 1.0)])
    found = recommendation(first, other)
    assert found.items == [first, other]
    assert found.expires_ms == NOW_MS + 1000
