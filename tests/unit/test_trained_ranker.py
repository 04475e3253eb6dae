"""A trained ranker in the recommender: its order, its chances, its reasons, its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from builders import NOW_MS
from shop_catalogue import ShopCatalogue

from models.model_folder import MANIFEST
from models.profile import HistoryItem, Profile
from models.ranking_features import FEATURES, GROUPS
from models.recommender import Recommender
from models.trained_ranker import (
    Conditions,
    RankerParts,
    TrainedRanker,
    _parts,
    load_ranker,
    log_shares,
    save_ranker,
)
from models.weights import ModelError

DIM, N_ITEMS = 12, 150
CONDITIONS = Conditions("hash-12", 0.3, 0.7, False)
NAMES = list(FEATURES)


def parts(**weights: float) -> RankerParts:
    n = len(NAMES)
    return RankerParts(
        weights=tuple(weights.get(name, 0.0) for name in NAMES),
        centres=(0.0,) * n,
        lows=(-100.0,) * n,
        highs=(100.0,) * n,
        slope=1.0,
        intercept=-1.0,
        diversity=0.0,
        conditions=CONDITIONS,
    )


@pytest.fixture
def catalogue() -> ShopCatalogue:
    vectors = np.random.default_rng(0).standard_normal((N_ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shop = ShopCatalogue({f"i{n}": vector for n, vector in enumerate(vectors)}, DIM)
    shop.put_strengths("i3", {"i9": 0.6, "i11": 0.2})
    shop.put_popularity({"i20": 9.0, "i21": 5.0})
    return shop


def shopper(*item_ids: str) -> Profile:
    acts = tuple(HistoryItem(item, 1.0, NOW_MS + n) for n, item in enumerate(item_ids))
    return Profile(acts, (), None, 0.0, None, 0.0, frozenset())


WHO = [shopper("i3", "i7"), shopper("i50"), shopper(), shopper("i7", "i3", "i9")]


def test_the_order_is_the_rankers_and_the_hybrids_where_it_says_the_same(
    catalogue: ShopCatalogue,
) -> None:
    like_the_hybrid = parts(text=0.3, together=0.7)
    ranker = TrainedRanker(like_the_hybrid, "ranker-1")
    ranked = Recommender(catalogue, ranker=ranker).recommend(WHO, 10, NOW_MS)
    hybrid = Recommender(catalogue, diversity=0).recommend(WHO, 10, NOW_MS)
    tops = [[item.item_id for item in of_it][:5] for of_it in ranked]
    assert tops == [[item.item_id for item in of_it][:5] for of_it in hybrid]
    best_known = TrainedRanker(parts(popularity=1.0), "ranker-2")
    recommender = Recommender(catalogue, ranker=best_known)
    first = recommender.recommend([shopper("i3")], 50, NOW_MS)[0][:2]
    assert [item.item_id for item in first] == ["i20", "i21"]
    assert recommender.name == "hybrid-1+ranker-2"


def test_scores_are_chances_among_all_that_could_be_shown(catalogue: ShopCatalogue) -> None:
    recommender = Recommender(catalogue, ranker=TrainedRanker(parts(together=3.0, text=1.0), "r"))
    ranked = recommender.recommend(WHO[:1], 10, NOW_MS)[0]
    chances = [item.score for item in ranked]
    assert chances == sorted(chances, reverse=True)
    assert 0 < sum(chances) < 1


def test_shares_of_a_shopper_add_up_to_one_whoever_is_beside(catalogue: ShopCatalogue) -> None:
    scores = np.array([1.0, 2.0, 80.0, 0.5], np.float32)
    owners = np.array([0, 0, 2, 2])
    shares = np.exp(log_shares(scores, owners, 4))
    assert np.bincount(owners, shares, 4) == pytest.approx([1, 0, 1, 0])


def test_reasons_are_what_each_group_adds_to_the_score(catalogue: ShopCatalogue) -> None:
    # i9 was taken with i3, which is all that this ranker looks at but for what is popular.
    ranker = TrainedRanker(parts(together=4.0, popularity=0.1), "r")
    found = Recommender(catalogue, ranker=ranker)
    best = found.recommend([shopper("i3")], 1, NOW_MS)[0][0]
    choices = found.choices([shopper("i3")], 1, NOW_MS)
    of_it = choices.features[choices.item_ids.index("i9")][None]
    together, popular = (ranker.shares(of_it)[0, GROUPS.index(g)] for g in ("together", "popular"))
    assert ranker.rate(of_it)[0] == pytest.approx(ranker.shares(of_it).sum(), rel=1e-5)
    assert best.item_id == "i9"
    assert (best.reasons[0].kind, best.reasons[0].item_id) == ("taken_together", "i3")
    assert best.reasons[0].weight == pytest.approx(together / (together + popular), abs=1e-4)


def test_what_speaks_through_texts_names_the_act_it_resembles(catalogue: ShopCatalogue) -> None:
    ranker = TrainedRanker(parts(nearest_text=2.0), "r")
    best = Recommender(catalogue, ranker=ranker).recommend([shopper("i50")], 1, NOW_MS)[0][0]
    assert (best.reasons[0].kind, best.reasons[0].item_id) == ("similar_to_item", "i50")
    assert best.reasons[0].weight == pytest.approx(1)


def test_of_a_shoppers_own_items_only_others_make_one_be_shown(catalogue: ShopCatalogue) -> None:
    ranker = TrainedRanker(parts(nearest_text=1.0, newest_text=1.0), "r")
    shown = Recommender(catalogue, ranker=ranker).recommend([shopper("i3", "i7")], 20, NOW_MS)[0]
    assert not {"i3", "i7"} & {item.item_id for item in shown}


def test_what_is_beyond_all_that_was_learnt_counts_as_the_most_there_was() -> None:
    narrow = replace(parts(days=1.0), highs=(2.0,) * len(NAMES), centres=(1.0,) * len(NAMES))
    features = np.full((3, len(NAMES)), np.nan, np.float32)
    features[:, NAMES.index("days")] = [9.0, 1.5, np.nan]
    assert TrainedRanker(narrow, "r").rate(features) == pytest.approx([1.0, 0.5, 0.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_ranker(tmp_path / "ranker", parts(text=1.5), {"data": {"n_items": 3}})
    return tmp_path / "ranker"


def test_a_folder_brings_the_ranker_back_and_names_it(folder: Path) -> None:
    ranker = load_ranker(folder, CONDITIONS)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert ranker.name == manifest["name"]
    assert manifest["data"] == {"n_items": 3}
    features = np.ones((1, len(NAMES)), np.float32)
    assert ranker.rate(features) == pytest.approx([1.5])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"encoder": "hash-64"}, "trained with encoder 'hash-12', and the settings say 'hash-64'"),
        ({"step_decay": 0.8}, "step_decay 0.7, and the settings say 0.8"),
        ({"cooccurrence_ridge": 200.0}, "cooccurrence_ridge 0.0, and the settings say 200.0"),
        ({"user_model": True}, "user_model False, and the settings say True"),
    ],
)
def test_under_other_conditions_it_is_refused(folder: Path, fields: dict, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_ranker(folder, replace(CONDITIONS, **fields))


def test_one_of_before_there_was_a_ridge_learnt_from_cosines() -> None:
    said = asdict(parts(text=1.5))
    del said["conditions"]["cooccurrence_ridge"]
    assert _parts(json.loads(json.dumps(said))).conditions == CONDITIONS


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1.0]},
        {"weights": [float("nan")] * len(NAMES)},
        {"slope": 0.0},
        {"diversity": 2},
        {"lows": "low"},
        {"conditions": None},
    ],
)
def test_what_is_no_ranker_is_refused(tmp_path: Path, change: dict) -> None:
    from models.model_folder import write_folder

    save_ranker(tmp_path / "good", parts(), {})
    said = json.loads((tmp_path / "good" / "weights.json").read_text())
    text = json.dumps({**said, **change})
    write_folder(tmp_path / "bad", "ranker", {"features": NAMES}, {"weights.json": text.encode()})
    with pytest.raises(ModelError, match="not a ranker's"):
        load_ranker(tmp_path / "bad", CONDITIONS)


def test_a_damaged_folder_is_refused(folder: Path) -> None:
    (folder / "weights.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        load_ranker(folder, CONDITIONS)
