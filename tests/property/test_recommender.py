from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from builders import NOW_MS
from fakes import LastItemModel
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from shop_catalogue import ShopCatalogue

from models import native
from models.hybrid import HybridRule
from models.profile import HistoryItem, HistoryText, Profile
from models.recommender import Recommender

DIM = 6


@dataclass
class Shop:
    catalogue: ShopCatalogue
    item_ids: list[str]
    removed: set[str]
    strengths: dict[str, dict[str, float]]
    user_model: LastItemModel | None


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    item_ids = [f"i{n}" for n in range(draw(st.integers(0, 25)))]
    vectors = rng.standard_normal((len(item_ids), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = LastItemModel(DIM) if draw(st.booleans()) else None
    catalogue = ShopCatalogue(dict(zip(item_ids, vectors, strict=True)), DIM, model)
    strengths: dict[str, dict[str, float]] = {}
    for item_id in item_ids:
        others = [o for o in item_ids if o != item_id and rng.random() < 0.2]
        strengths[item_id] = {other: float(rng.random()) for other in others}
        catalogue.put_strengths(item_id, strengths[item_id])
    if item_ids:
        removed = set(draw(st.lists(st.sampled_from(item_ids))))
        catalogue.remove(sorted(removed))
        catalogue.put_popularity({i: rng.random() for i in item_ids if rng.random() < 0.5})
    else:
        removed = set()
    return Shop(catalogue, item_ids, removed, strengths, model)


@st.composite
def profiles(draw: st.DrawFn, *, pure: bool = False) -> Profile:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    known = [f"i{n}" for n in range(28)]  # some of them in no catalogue
    acts = draw(st.lists(st.sampled_from(known), max_size=8, unique=pure))
    weights = [1.5] if pure else [0.3, 1.0, 1.5, -2.0, 0.0]
    items = tuple(
        HistoryItem(item_id, draw(st.sampled_from(weights)), NOW_MS + at)
        for at, item_id in enumerate(acts)
    )
    excluded = frozenset(draw(st.lists(st.sampled_from(known), max_size=28)))
    texts: tuple[HistoryText, ...] = ()
    sums: list[np.ndarray | None] = [None, None]
    if not pure:
        texts = tuple(
            HistoryText(kind, kind, rng.standard_normal(DIM).astype(np.float32), 0.8, NOW_MS)
            for kind in draw(st.lists(st.sampled_from(["search", "interest"]), max_size=3))
        )
        sums = [
            rng.standard_normal(DIM).astype(np.float32) if draw(st.booleans()) else None
            for _ in range(2)
        ]
    return Profile(
        items=items,
        texts=texts,
        long_interest=sums[0],
        long_weight=0.0 if sums[0] is None else 1.5,
        short_interest=sums[1],
        short_weight=0.0 if sums[1] is None else -0.5,
        exclude=excluded,
        region=draw(st.sampled_from([None, "north"])),
    )


@given(shops(), profiles(), st.integers(1, 30), st.sampled_from([0.0, 0.15, 1.0]))
def test_the_list_holds_what_it_may_and_as_much_as_it_can(
    shop: Shop, profile: Profile, k: int, diversity: float
) -> None:
    recommender = Recommender(
        shop.catalogue, diversity=diversity, n_candidates=10, user_model=shop.user_model
    )
    ranked = recommender.recommend([profile], k, NOW_MS)[0]
    allowed = set(shop.item_ids) - shop.removed - profile.exclude
    picked = [item.item_id for item in ranked]
    assert set(picked) <= allowed
    assert len(set(picked)) == len(picked) == min(k, len(allowed))


@given(shops(), profiles(), st.integers(1, 10))
def test_every_pick_has_reasons_that_are_shares(shop: Shop, profile: Profile, k: int) -> None:
    told = {act.item_id for act in profile.items} | {text.text for text in profile.texts}
    recommender = Recommender(shop.catalogue, user_model=shop.user_model)
    for item in recommender.recommend([profile], k, NOW_MS)[0]:
        assert item.reasons
        weights = [why.weight for why in item.reasons]
        assert weights == sorted(weights, reverse=True)
        assert min(weights) >= 0
        assert sum(weights) <= 1 + 2e-4  # each is rounded
        assert np.isfinite(item.score)
        for why in item.reasons:
            assert (why.item_id or why.query or why.text or next(iter(told), None)) in {*told, None}


@given(shops(), st.lists(profiles(), min_size=1, max_size=4), st.integers(1, 10))
def test_a_batch_gives_what_one_by_one_gives(shop: Shop, batch: list[Profile], k: int) -> None:
    recommender = Recommender(shop.catalogue, user_model=shop.user_model)
    together = recommender.recommend(batch, k, NOW_MS)
    for profile, ranked in zip(batch, together, strict=True):
        alone = recommender.recommend([profile], k, NOW_MS)[0]
        assert [x.score for x in ranked] == pytest.approx([x.score for x in alone], abs=1e-5)


@given(
    shops(), profiles(pure=True), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.7, 1.0])
)
def test_equal_weights_give_the_training_free_hybrid(
    shop: Shop, profile: Profile, share: float, decay: float
) -> None:
    catalogue = shop.catalogue
    history = [
        act.item_id for act in profile.items if act.item_id in set(shop.item_ids) - shop.removed
    ]
    profile = replace(profile, exclude=profile.exclude | set(history))
    rule = HybridRule(share, decay, popular=0, new_arrival=0)
    ranked = Recommender(catalogue, diversity=0, rule=rule).recommend([profile], 30, NOW_MS)[0]
    rows = catalogue.rows(shop.item_ids)
    vectors = dict(zip(shop.item_ids, catalogue.centred(rows), strict=True))
    n = len(history)
    for item in ranked if history else []:
        x = item.item_id
        expected = sum(
            decay ** (n - j)
            * (share * vectors[x] @ vectors[h] + (1 - share) * shop.strengths[h].get(x, 0.0))
            / n
            for j, h in enumerate(history, start=1)
        )
        # Elements a ten-thousandth as heavy as the heaviest are left out.
        assert item.score == pytest.approx(expected, abs=1e-3 / n)
    if history:
        scores = [item.score for item in ranked]
        assert scores == sorted(scores, reverse=True)


@given(shops(), profiles(), st.sampled_from([0.5, 3.0]))
def test_the_scale_of_the_weights_does_not_matter(
    shop: Shop, profile: Profile, factor: float
) -> None:
    scaled = replace(
        profile,
        items=tuple(structs.replace(act, weight=act.weight * factor) for act in profile.items),
        texts=tuple(structs.replace(text, weight=text.weight * factor) for text in profile.texts),
    )
    one, other = Recommender(shop.catalogue).recommend([profile, scaled], 10, NOW_MS)
    assert [x.score for x in one] == pytest.approx([x.score for x in other], abs=1e-4)


@pytest.mark.skipif(not native.is_on(), reason="native code was not built")
@given(shop=shops(), asked=st.lists(profiles(), min_size=1, max_size=4), k=st.integers(1, 8))
def test_native_code_ranks_as_numpy_does(shop: Shop, asked: list[Profile], k: int) -> None:
    recommender = Recommender(shop.catalogue, n_candidates=5, user_model=shop.user_model)
    natively = recommender.recommend(asked, k, NOW_MS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFSTREAM_NATIVE", "0")
        in_numpy = recommender.recommend(asked, k, NOW_MS)
    for one, other in zip(natively, in_numpy, strict=True):
        # Equals may change places by rounding.
        assert [r.score for r in one] == pytest.approx([r.score for r in other], abs=1e-5)
        reference = {r.item_id: r for r in other}
        for mine in one:
            theirs = reference.get(mine.item_id)
            if theirs is None:
                continue
            assert mine.score == pytest.approx(theirs.score, abs=1e-5)
            assert [r.weight for r in mine.reasons] == pytest.approx(
                [r.weight for r in theirs.reasons], abs=2e-4
            )
        if len({round(r.score, 4) for r in other}) == len(other):
            assert [r.item_id for r in one] == [r.item_id for r in other]
