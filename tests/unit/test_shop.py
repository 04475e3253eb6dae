from collections import Counter
from itertools import islice

import msgspec
import numpy as np
import pytest

from stream.core.events import PARSERS
from stream.demo.shop import build_shop
from stream.demo.shoppers import Act, Crowd, build_shoppers, n_shoppers
from stream.topics import DAY_MS, HOUR_MS

NOW_MS = 1_760_000_000_000
RUN_MS = 30_000


def crowd(seed: int = 7) -> Crowd:
    return Crowd(build_shop(seed, NOW_MS), build_shoppers(seed, NOW_MS, RUN_MS))


def live_acts(people: Crowd, n: int, step_ms: int = 50, seed: int = 7) -> list[Act]:
    now_ms = NOW_MS

    def clock() -> int:
        return now_ms

    acts = people.acts(np.random.default_rng(seed), clock)
    done = []
    for _ in range(n):
        done.append(next(acts))
        now_ms += step_ms
    return done


def test_the_same_seed_gives_the_same_shop_and_the_same_acts():
    assert live_acts(crowd(), 300) == live_acts(crowd(), 300)
    assert build_shop(7, NOW_MS).items == build_shop(7, NOW_MS).items
    assert build_shop(8, NOW_MS).items != build_shop(7, NOW_MS).items


def test_the_shop_sells_a_few_hundred_different_items_in_two_languages():
    items = [each.item for each in build_shop(7, NOW_MS).items.values()]
    assert 300 <= len(items) <= 400
    assert len({item.title for item in items}) == len(items)
    assert Counter(item.locale for item in items)["zh"] > 100
    assert Counter(item.locale for item in items)["en"] > 100


def test_a_large_shop_has_no_title_twice():
    shop = build_shop(7, NOW_MS, n_items=10_000)
    assert len(shop) == 10_000
    assert len({each.item.title for each in shop.items.values()}) == 10_000


def test_a_fifth_of_the_items_draws_most_of_the_acts():
    appeals = sorted((each.appeal for each in build_shop(7, NOW_MS).items.values()), reverse=True)
    assert sum(appeals) == pytest.approx(1)
    assert sum(appeals[: len(appeals) // 5]) > 0.5


def test_every_act_is_an_event_that_the_program_accepts():
    acts = live_acts(crowd(), 500)
    for act in acts:
        raw = msgspec.json.encode(act.event)
        assert PARSERS[act.topic](raw, act.user_id.encode()) == act.event
    assert {act.topic for act in acts} == {"clickstream", "searches", "reviews"}
    assert len({act.event_id for act in acts}) == len(acts)
    assert {getattr(act.event, "type", None) for act in acts} >= {
        *("view", "click", "add_to_cart", "purchase", "dislike")
    }


def test_shoppers_mostly_look_at_what_they_like_and_dislike_what_they_do_not():
    people = crowd()
    liked: dict[str, list[float]] = {"view": [], "dislike": []}
    for act in live_acts(people, 1000):
        if (kind := getattr(act.event, "type", None)) in liked:
            affinity = people.affinity(act.user_id, act.event.item_id, act.event.event_time_ms)
            liked[kind].append(affinity)
    assert np.mean(liked["view"]) > 0.85
    assert set(liked["dislike"]) == {0.0}


def test_half_of_the_shoppers_change_taste_in_the_middle_of_the_run():
    shoppers = [s for s in crowd().shoppers.values() if s.switch_ms is not None]
    assert len(shoppers) == 32
    for shopper in shoppers:
        assert NOW_MS + 0.3 * RUN_MS < shopper.switch_ms < NOW_MS + 0.7 * RUN_MS
        before, after = shopper.tastes(shopper.switch_ms - 1), shopper.tastes(shopper.switch_ms)
        assert not set(before) & set(after)


def test_affinity_follows_the_taste_of_the_moment():
    people = crowd()
    shopper = next(s for s in people.shoppers.values() if s.switch_ms is not None)
    (old,) = shopper.tastes(NOW_MS)[:1]
    item_id = people.shop.of_taste[old][0].item.item_id
    assert people.affinity(shopper.user_id, item_id, shopper.switch_ms - 1) == 1
    assert people.affinity(shopper.user_id, item_id, shopper.switch_ms) == 0
    assert people.affinity("a stranger", item_id, NOW_MS) == 0
    assert people.affinity(shopper.user_id, "not on sale", NOW_MS) == 0


def test_acts_after_the_change_are_of_the_new_taste():
    people = crowd()
    late = [act for act in live_acts(people, 1500) if act.event.event_time_ms > NOW_MS + RUN_MS]
    views = [act.event for act in late if getattr(act.event, "type", None) == "view"]
    shares = [people.affinity(view.user_id, view.item_id, view.event_time_ms) for view in views]
    assert np.mean(shares) > 0.85


def test_history_lies_in_the_past_in_order_and_keeps_new_and_lapsed_shoppers_silent():
    people = crowd()
    history = people.history(np.random.default_rng(7), NOW_MS)
    times = [act.event.event_time_ms for act in history]
    assert len(history) > 1000
    assert times == sorted(times)
    assert times[-1] <= NOW_MS - HOUR_MS
    last = {act.user_id: act.event.event_time_ms for act in history}
    for user_id, shopper in people.shoppers.items():
        if shopper.past == "new":
            assert user_id not in last
        if shopper.past == "lapsed":
            assert last.get(user_id, 0) < NOW_MS - 35 * DAY_MS


def test_a_clock_that_stands_still_still_gives_acts():
    acts = list(islice(crowd().acts(np.random.default_rng(1), lambda: NOW_MS), 50))
    assert {act.event.event_time_ms for act in acts} == {NOW_MS}


def test_a_larger_crowd_has_as_many_different_people_and_more_of_them_in_the_shop_at_once():
    large = build_shoppers(7, NOW_MS, RUN_MS, n=640)
    assert len({each.user_id for each in large}) == 640
    # The names of the first sixty-four come back with a number, and keep their language.
    assert Counter(each.user.locale for each in large) == {"en": 320, "zh": 320}

    def present(people: Crowd) -> int:
        return len({act.user_id for act in live_acts(people, 400)[-60:]})

    assert present(Crowd(build_shop(7, NOW_MS), large)) > 3 * present(crowd())


@pytest.mark.parametrize(("rate", "n"), [(1, 64), (20, 64), (200, 640)])
def test_a_faster_shop_has_more_shoppers_not_hastier_ones(rate: float, n: int):
    assert n_shoppers(rate) == n
