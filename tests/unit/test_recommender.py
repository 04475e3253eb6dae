from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from builders import NOW_MS
from shop_catalogue import ShopCatalogue

from models.hashed_ids import HashedIds
from models.hybrid import HybridRule
from models.neighbours import NeighbourFacts
from models.profile import HistoryItem, HistoryText, Profile, RecommendedItem
from models.recommender import Recommender

# Three kinds of thing and their opposites, so that the catalogue's mean is near zero.
BOOTS, HAT, TEA = np.eye(3, dtype=np.float32)


def near(kind: np.ndarray, other: np.ndarray) -> np.ndarray:
    vector = kind + 0.2 * other
    return vector / np.linalg.norm(vector)


VECTORS = {
    "boots": BOOTS,
    "red boots": near(BOOTS, HAT),
    "old boots": near(BOOTS, -TEA),
    "hat": HAT,
    "wool hat": near(HAT, TEA),
    "tea": TEA,
    "green tea": near(TEA, -HAT),
    "sandals": -BOOTS,
    "scarf": -HAT,
    "coffee": -TEA,
}


def shop() -> ShopCatalogue:
    return ShopCatalogue(VECTORS, 3)


def profile(
    *items: tuple[str, float] | str,
    searches: Iterable[tuple[str, np.ndarray]] = (),
    interests: Iterable[tuple[str, np.ndarray]] = (),
    **fields: Any,
) -> Profile:
    acts = [act if isinstance(act, tuple) else (act, 1.0) for act in items]
    base: dict[str, Any] = {
        "items": tuple(
            HistoryItem(item_id, weight, NOW_MS + at) for at, (item_id, weight) in enumerate(acts)
        ),
        "texts": (
            *(HistoryText("interest", text, vector, 1.0, NOW_MS) for text, vector in interests),
            *(HistoryText("search", text, v, 0.8, NOW_MS + 100) for text, v in searches),
        ),
        "long_interest": None,
        "long_weight": 0.0,
        "short_interest": None,
        "short_weight": 0.0,
        "exclude": frozenset(),
    }
    return Profile(**{**base, **fields})


def recommend(
    who: Profile, k: int = 3, catalogue: ShopCatalogue | None = None, **rule: Any
) -> list[RecommendedItem]:
    small = {"popular": 0.0, "new_arrival": 0.0}
    hybrid = HybridRule(**{"text_share": 0.3, "step_decay": 0.7, **small, **rule})
    recommender = Recommender(catalogue or shop(), diversity=0, rule=hybrid)
    return recommender.recommend([who], k, NOW_MS)[0]


def ids(ranked: Iterable[RecommendedItem]) -> list[str]:
    return [item.item_id for item in ranked]


def place(who: Profile, item_id: str, **fields: Any) -> int:
    return ids(recommend(who, k=len(VECTORS), **fields)).index(item_id)


# --- what is recommended -------------------------------------------------------------------------


def test_what_resembles_the_last_act_comes_first() -> None:
    assert set(ids(recommend(profile("hat", "boots"), 2))) == {"red boots", "old boots"}


def test_what_was_taken_together_beats_what_only_resembles() -> None:
    catalogue = shop()
    catalogue.put_strengths("boots", {"tea": 0.8})
    best = recommend(profile("boots"), 1, catalogue)[0]
    assert (best.item_id, best.source) == ("tea", "taken_together")


def test_of_what_was_taken_together_what_is_taken_more_of_late_comes_first() -> None:
    catalogue = shop()
    catalogue.put_strengths("boots", {"tea": 0.4, "green tea": 0.5})
    for item_id, popularity in (("tea", 30.0), ("green tea", 3.0)):
        facts = NeighbourFacts(item_id, NOW_MS, 1.0, popularity=popularity, lasting=1000.0)
        catalogue.put_neighbours(facts)
    assert ids(recommend(profile("boots"), 1, catalogue)) == ["green tea"]
    best = recommend(profile("boots"), 1, catalogue, trend=0.35)[0]
    assert (best.item_id, best.source) == ("tea", "taken_together")


def test_the_newest_act_weighs_most() -> None:
    assert ids(recommend(profile("boots", "tea"), 1)) == ["green tea"]
    assert ids(recommend(profile("tea", "boots"), 1))[0].endswith("boots")


def test_acts_at_the_same_moment_count_in_their_order() -> None:
    acts = tuple(HistoryItem(item_id, 1.0, NOW_MS) for item_id in ("boots", "tea"))
    assert ids(recommend(profile(items=acts), 1)) == ["green tea"]


def test_a_heavier_act_weighs_more() -> None:
    assert ids(recommend(profile(("tea", 1.5), ("hat", 0.3)), 1)) == ["green tea"]


def test_acts_on_one_item_are_one_step_back() -> None:
    once = recommend(profile("tea", "boots"), 5)
    many = recommend(profile("tea", "boots", "boots", "boots"), 5)
    assert ids(once) == ids(many)
    assert [item.score for item in once] == pytest.approx([item.score for item in many])


def test_a_dislike_takes_no_step_and_pushes_down_what_resembles_it() -> None:
    liked, disliked = profile("boots", "tea"), profile("boots", "tea", ("hat", -2.0))
    assert place(disliked, "wool hat") > place(liked, "wool hat")
    assert ids(recommend(disliked, 1)) == ids(recommend(liked, 1)) == ["green tea"]


def test_a_purchase_taken_back_by_a_dislike_speaks_against() -> None:
    regretted = profile(("hat", 1.5), ("hat", -2.0), exclude=frozenset({"hat"}))
    assert place(profile("hat"), "wool hat") < 3 < place(regretted, "wool hat")


def test_a_search_is_answered() -> None:
    best = recommend(profile("boots", searches=[("something hot", TEA)]), 2)
    assert set(ids(best)) == {"tea", "green tea"}
    assert best[0].reasons[0].kind == "matches_search"
    assert (best[0].reasons[0].query, best[0].reasons[0].text) == ("something hot", None)


def test_a_stated_interest_fades_as_acts_come_in() -> None:
    interests = [("hot drinks", TEA)]
    assert ids(recommend(profile(interests=interests), 1)) == ["tea"]
    acted = profile("hat", "boots", interests=interests)
    assert place(acted, "tea") > place(acted, "red boots")


def test_a_lasting_interest_settles_ties() -> None:
    # Red boots and old boots resemble boots equally, up to the catalogue's mean.
    fond = profile("boots", long_interest=HAT, long_weight=1.0, exclude=frozenset({"boots"}))
    assert ids(recommend(fond, 1, long_interest=0.2)) == ["red boots"]
    cool = profile("boots", long_interest=-TEA, long_weight=1.0, exclude=frozenset({"boots"}))
    assert ids(recommend(cool, 1, long_interest=0.2)) == ["old boots"]


def test_what_has_left_the_catalogue_still_speaks_through_the_interests() -> None:
    who = profile("a hat of last year", long_interest=3 * HAT, long_weight=3.0)
    assert ids(recommend(who, 1)) == ["hat"]


def test_a_sum_of_what_was_turned_down_is_no_interest_in_its_opposite() -> None:
    catalogue = shop()
    catalogue.put_popularity({"tea": 9})
    who = profile(short_interest=-HAT, short_weight=-1.0)
    assert ids(recommend(who, 1, catalogue)) == ["tea"]


def test_an_unknown_item_in_the_history_says_nothing() -> None:
    known, more = profile("boots", "tea"), profile("boots", "no such item", "tea", "nor this")
    assert recommend(known, 5) == recommend(more, 5)


# --- what is not ---------------------------------------------------------------------------------


def test_an_excluded_item_does_not_come_back() -> None:
    who = profile("boots", exclude=frozenset({"red boots", "old boots", "never heard of"}))
    assert not {"red boots", "old boots"} & set(ids(recommend(who, 10)))


def test_an_item_excluded_by_its_hash_comes_back_to_others_of_the_batch_alone() -> None:
    hashed = HashedIds().plus(["red boots", "old boots", "tea"])
    bought, free = profile("boots", exclude_hashed=hashed), profile("boots")
    catalogue = shop()
    catalogue.put_popularity({"tea": 9})
    one, other, again = Recommender(catalogue).recommend([bought, free, bought], 10, NOW_MS)
    assert set(ids(one)) == VECTORS.keys() - {"red boots", "old boots", "tea"}
    assert set(ids(other)) == set(VECTORS)
    assert again == one


def test_what_hashes_exclude_leaves_no_gap_among_what_is_popular() -> None:
    catalogue = shop()
    catalogue.put_popularity({"tea": 9, "coffee": 5, "scarf": 2, "hat": 1})
    who = profile(exclude_hashed=HashedIds().plus(["tea", "coffee"]))
    assert ids(recommend(who, 2, catalogue)) == ["scarf", "hat"]


def test_a_removed_item_is_not_recommended() -> None:
    catalogue = shop()
    catalogue.remove(["red boots"])
    catalogue.put_strengths("boots", {"red boots": 1.0})
    assert "red boots" not in ids(recommend(profile("boots"), 10, catalogue))


def test_what_was_seen_already_gives_way_but_may_return() -> None:
    who = profile("boots")
    assert ids(recommend(who, 1)) != ["boots"]
    assert "boots" in ids(recommend(who, len(VECTORS)))
    last = ids(recommend(who, len(VECTORS), repeat_penalty=2.0))[-1]
    assert last == "boots"


# --- cold start and the guarantees ----------------------------------------------------------------


def test_a_new_shopper_gets_what_is_popular_in_the_region_first() -> None:
    catalogue = shop()
    catalogue.put_popularity({"tea": 9, "coffee": 5})
    catalogue.put_popularity({"scarf": 1}, region="north")
    ranked = recommend(profile(region="north"), 3, catalogue)
    assert ids(ranked) == ["scarf", "tea", "coffee"]
    assert {item.source for item in ranked} == {"popular"}
    assert [item.reasons[0].kind for item in ranked] == ["popular"] * 3


def test_a_new_shoppers_stated_interests_come_before_what_is_popular() -> None:
    catalogue = shop()
    catalogue.put_popularity({"tea": 9})
    who = profile(interests=[("warm hats", HAT)])
    ranked = Recommender(catalogue).recommend([who], 2, NOW_MS)[0]
    assert set(ids(ranked)) == {"hat", "wool hat"}
    assert (ranked[0].source, ranked[0].reasons[0].kind) == ("stated_interest", "matches_interest")


def test_the_list_is_full_even_when_candidates_are_few() -> None:
    recommender = Recommender(shop(), n_candidates=2)
    assert len(recommender.recommend([profile("boots")], 9, NOW_MS)[0]) == 9


def test_one_item_left_is_recommended() -> None:
    who = profile("boots", exclude=frozenset(VECTORS) - {"coffee"})
    assert ids(recommend(who, 20)) == ["coffee"]


def test_an_empty_catalogue_gives_empty_lists() -> None:
    ranked = Recommender(ShopCatalogue({}, 3)).recommend([profile("boots"), profile()], 5, NOW_MS)
    assert ranked == [[], []]


def test_no_profiles_give_no_lists() -> None:
    assert Recommender(shop()).recommend([], 5, NOW_MS) == []


def test_asking_for_nothing_gives_nothing() -> None:
    assert Recommender(shop()).recommend([profile("boots")], 0, NOW_MS) == [[]]


# --- reasons -------------------------------------------------------------------------------------


def test_a_reason_names_the_item_that_is_resembled() -> None:
    best = recommend(profile("tea", "boots"), 1)[0]
    why = best.reasons[0]
    assert (why.kind, why.item_id) == ("similar_to_item", "boots")
    assert best.source == "short_interest"


def test_a_reason_names_the_item_it_is_taken_with() -> None:
    catalogue = shop()
    catalogue.put_strengths("boots", {"coffee": 0.9})
    coffee = recommend(profile("tea", "boots"), 1, catalogue)[0]
    assert coffee.item_id == "coffee"
    assert [(why.kind, why.item_id) for why in coffee.reasons] == [("taken_together", "boots")]
    assert coffee.reasons[0].weight == pytest.approx(1.0)


def test_two_reasons_share_the_score() -> None:
    catalogue = shop()
    catalogue.put_strengths("boots", {"red boots": 0.5})
    best = recommend(profile("boots"), 1, catalogue)[0]
    shares = {why.kind: why.weight for why in best.reasons}
    assert shares.keys() == {"taken_together", "similar_to_item"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["taken_together"] == pytest.approx(0.7 * 0.5 / best.score, rel=1e-3)


def test_an_item_is_not_its_own_reason() -> None:
    again = {item.item_id: item for item in recommend(profile("hat", "boots"), len(VECTORS))}
    for item_id in ("boots", "hat"):
        assert item_id not in [why.item_id for why in again[item_id].reasons]


def test_what_was_disliked_is_no_reason_for_its_opposite() -> None:
    picked = recommend(profile("hat", ("boots", -2.0)), k=9)
    assert "sandals" in ids(picked)
    named = {reason.item_id for item in picked for reason in item.reasons}
    assert "boots" not in named


def test_an_interest_without_acts_is_named() -> None:
    who = profile(long_interest=2 * TEA, long_weight=2.0)
    best = recommend(who, 1)[0]
    assert best.item_id == "tea"
    assert [why.kind for why in best.reasons] == ["long_term_interest"]
