from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import NOW_MS
from fakes import LastItemModel
from shop_catalogue import ShopCatalogue

from models.candidates import Pools, merge
from models.hybrid import HybridRule, promising, score
from models.profile import HistoryItem, Profile
from models.retrieval import Retrieval
from models.shoppers import Shoppers

DIM, N_ITEMS = 12, 300
#: Enough that the limit of four times as many leaves nothing out by itself.
N_BEST = N_ITEMS // 4
RULE = HybridRule(0.3, 0.7)


MODEL = LastItemModel(DIM)


@pytest.fixture
def shop() -> ShopCatalogue:
    """Items in clusters, so that many resemble what a shopper did, or is against."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((12, DIM))[np.arange(N_ITEMS) % 12]
    vectors += 0.4 * rng.standard_normal((N_ITEMS, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ShopCatalogue({f"i{n}": vector for n, vector in enumerate(vectors)}, DIM, MODEL)


def shopper(*acts: tuple[str, float]) -> Profile:
    items = tuple(HistoryItem(item_id, w, NOW_MS + n) for n, (item_id, w) in enumerate(acts))
    return Profile(items, (), None, 0.0, None, 0.0, frozenset())


def pooled(
    shop: ShopCatalogue,
    profiles: list[Profile],
    n_candidates: int = N_ITEMS,
    model: LastItemModel | None = None,
) -> tuple[Pools, Shoppers, np.ndarray]:
    retrieval = Retrieval(shop, RULE, n_candidates, model)
    shoppers = retrieval.shoppers(profiles)
    found, foreseen = retrieval.found(shoppers), retrieval.foreseen(shoppers)
    shelf, together = retrieval.shelf(shoppers, NOW_MS), retrieval.together(shoppers)
    return merge(shoppers, found, foreseen, shelf, together, shop), shoppers, found.beyond


@pytest.mark.parametrize("seed", range(8))
def test_none_of_the_best_is_left_out_unscored(shop: ShopCatalogue, seed: int) -> None:
    """Whatever speaks against something, or was acted on, may fall in the score."""
    rng = np.random.default_rng(seed)
    acts = [
        (f"i{row}", float(weight))
        for row, weight in zip(
            rng.choice(N_ITEMS, 12, replace=False), rng.choice([1.0, 0.5, -2.0], 12), strict=True
        )
    ]
    for profile in (shopper(*acts), shopper(*((item_id, abs(w)) for item_id, w in acts))):
        pools, shoppers, beyond = pooled(shop, [profile])
        scores = score(pools, shop.centred(pools.rows), shoppers, RULE)
        best = set(np.argsort(-scores)[:N_BEST].tolist())
        assert best <= set(promising(pools, beyond, shoppers, RULE, N_BEST).tolist())


@pytest.mark.parametrize("seed", range(4))
def test_none_of_the_best_is_left_out_where_a_model_speaks_too(
    shop: ShopCatalogue, seed: int
) -> None:
    """Of what the index did not find only a bound of the text part is known."""
    rule = replace(RULE, learnt=MODEL.weight)
    liked = np.random.default_rng(seed).choice(N_ITEMS, 6, replace=False)
    shop.put_strengths("i0", {f"i{row}": 0.2 for row in range(50, 150)})
    profile = shopper(*((f"i{row}", 1.0) for row in liked), ("i0", 1.0))
    pools, shoppers, beyond = pooled(shop, [profile], 20, MODEL)
    n_best = len(pools.rows) // 4
    scores = score(pools, shop.centred(pools.rows), shoppers, rule)
    kept = promising(pools, beyond, shoppers, rule, n_best)
    assert set(np.argsort(-scores)[:n_best].tolist()) <= set(kept.tolist())


def test_what_a_shopper_has_acted_on_gains_nothing_by_its_fit(shop: ShopCatalogue) -> None:
    profile = shopper(("i1", 1.0), ("i0", 1.0))
    pools, shoppers, *_ = pooled(shop, [profile], model=MODEL)
    vectors = shop.centred(pools.rows)
    plain = score(pools, vectors, shoppers, RULE)
    gained = score(pools, vectors, shoppers, replace(RULE, learnt=MODEL.weight)) - plain
    own = np.isin(pools.rows, shop.rows(["i0", "i1"]))
    assert gained[own] == pytest.approx(0, abs=1e-6)
    wanted = MODEL.weight * shoppers.reach[0] * pools.fit[~own]
    assert wanted.any()
    assert gained[~own] == pytest.approx(wanted, abs=1e-5)


def test_an_items_likeness_to_itself_does_not_count(shop: ShopCatalogue) -> None:
    liked = shopper(("i0", 1.0), ("i1", 1.0))
    pools, shoppers, *_ = pooled(shop, [liked])
    vectors = shop.centred(pools.rows)
    at = int(np.flatnonzero(pools.rows == shop.row("i0"))[0])
    other = float(vectors[at] @ shop.centred(shop.rows(["i1"]))[0])

    wanted = RULE.text_share * float(shoppers.coefficients[1]) * other
    wanted -= RULE.repeat_penalty * float(shoppers.reach[0])
    wanted += float(shoppers.reach[0]) * RULE.new_arrival * float(pools.new_arrival[at])
    wanted += float(shoppers.reach[0]) * RULE.popular * float(pools.popular[at])

    assert score(pools, vectors, shoppers, RULE)[at] == pytest.approx(wanted, abs=1e-5)
