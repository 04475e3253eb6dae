"""Amazon Beauty: the next item of each shopper, among all, without training.

Leave one out as in S3-Rec, TIGER and LIGER: the last item is the test, seen ones are not asked for.
The prequential part replays the last fifth of everyone's acts, each predicted before it is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.evaluation import baselines, intervals, ranking
from models.evaluation.baselines import Baseline
from models.evaluation.ranking import PADDING, Lists
from models.evaluation.splits import History, LeftOut, last_share, leave_one_out
from models.items import ItemFacts
from models.user_model import UserModel
from stream.core.events import Interaction
from stream.evaluate.datasets import Sequences, load_amazon_beauty
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.shop import LiveShop
from stream.evaluate.vectors import Encode, encoded
from stream.settings import Settings

K = (5, 10, 20)
#: Users learnt from, or asked for, at once.
_BATCH = 1000
#: The data has no times: acts are told a minute apart, so that half-lives see them as one month.
_FIRST_MS, _STEP_MS = 1_700_000_000_000, 60_000
#: When lists are asked for, behind the longest history.
ASKED_MS = _FIRST_MS + 200 * _STEP_MS
#: The share of a shopper's acts that is predicted one by one.
_LAST = 0.2
QUICK_USERS = 1500


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield leave one out, then the prequential evaluation; ``quick`` asks of a few users alone."""
    beauty = load_amazon_beauty(data)
    on_step(f"encoding {beauty.n_items:,} titles")
    vectors = encode(beauty.titles, settings)
    # Everyone is learnt from; intervals say what asking fewer costs.
    asked = np.arange(len(beauty.users))[:: len(beauty.users) // QUICK_USERS if quick else 1]
    yield _leave_one_out(beauty, vectors, asked, settings, on_step)
    yield _prequential(beauty, vectors, asked, settings, on_step)


# Leave one out -----------------------------------------------------------------------------------


def _leave_one_out(
    beauty: Sequences,
    vectors: NDArray[np.float32],
    asked: NDArray[np.int64],
    settings: Settings,
    on_step: OnStep,
) -> Evaluated:
    split = leave_one_out(beauty.users)
    on_step("the live path: learning")
    shop = open_shop(beauty, vectors, settings.model_copy(update={"diversity": 0.0}))
    learn_all(shop, split.histories)
    on_step("the live path: asking")
    lists = {"live path, no training": ask(shop, asked)}
    histories = [split.histories[user] for user in asked]
    for name, baseline in _baselines(split, beauty, vectors):
        on_step(name)
        lists[name] = baselines.ranked(baseline, histories, max(K))
    targets = [split.targets[user] for user in asked]
    taken = baselines.matrix(split.histories, beauty.n_items)
    takers = np.asarray(taken.sum(axis=0), np.int64).ravel()
    rows = [_row(name, of_it, targets, vectors, takers) for name, of_it in lists.items()]
    return Evaluated(
        "beauty_zero_shot",
        rows,
        f"Leave one out, all {beauty.n_items:,} items ranked, {len(asked):,} users asked of "
        f"{len(beauty.users):,}; titles by {settings.encoder}. The live path is the stream's fold, "
        f"counts, index and ranker with text_share {settings.text_share} and step_decay "
        f"{settings.step_decay} (chosen on the item before the last) and MMR off; rows of at most "
        f"{settings.max_state_bytes} bytes.",
    )


def _baselines(
    split: LeftOut, beauty: Sequences, vectors: NDArray[np.float32]
) -> Iterator[tuple[str, Baseline]]:
    histories, n_items, titles = split.histories, beauty.n_items, beauty.titles
    yield "the same formula on whole matrices", baselines.hybrid(histories, vectors)
    yield "popularity", baselines.popularity(histories, n_items)
    yield "recent popularity", baselines.recent_popularity(histories, n_items)
    yield "item-kNN", baselines.item_knn(histories, n_items)
    yield "item-kNN, decayed", baselines.item_knn(histories, n_items, decay=0.7)
    yield "matrix factorisation (ALS)", baselines.als(histories, n_items)
    yield "TF-IDF", baselines.tf_idf(titles, decay=0.7)
    yield "word2vec", baselines.content(baselines.word_vectors(titles), decay=0.7)
    yield "last item", baselines.last_item(vectors)
    yield "plain mean", baselines.content(vectors)


def _row(
    name: str,
    lists: Lists,
    targets: Sequence[History],
    vectors: NDArray[np.float32],
    takers: NDArray[np.int64],
) -> Row:
    values = ranking.per_user(lists, targets, K)
    wanted = ("recall_at_5", "recall_at_10", "recall_at_20", "ndcg_at_10", "mrr_at_10")
    first = lists[:, :10]
    return Row(
        name,
        {metric: intervals.mean(values[metric]) for metric in wanted},
        {
            "coverage": ranking.coverage(first, len(vectors)),
            "gini": ranking.gini(first, len(vectors)),
            "novelty": float(ranking.novelty(first, takers).mean()),
            "diversity": float(np.nanmean(ranking.diversity(first, vectors))),
        },
    )


# Prequential -------------------------------------------------------------------------------------


def _prequential(
    beauty: Sequences,
    vectors: NDArray[np.float32],
    asked: NDArray[np.int64],
    settings: Settings,
    on_step: OnStep,
) -> Evaluated:
    split = last_share(beauty.users, _LAST)
    without_mmr = settings.model_copy(update={"diversity": 0.0})
    found: dict[str, list[dict[str, ranking.PerUser]]] = {}
    for name, counting in (("live path, learning on", True), ("frozen before", False)):
        on_step(f"prequential, {name}")
        shop = open_shop(beauty, vectors, without_mmr)
        learn_all(shop, split.histories)
        found[name] = list(_act_by_act(shop, split, asked, counting))
    values = {
        name: {metric: np.concatenate([v[metric] for v in steps]) for metric in steps[0]}
        for name, steps in found.items()
    }
    wanted = ("recall_at_5", "recall_at_10", "recall_at_20", "ndcg_at_10", "mrr_at_10")
    live, frozen = values.values()
    gain = intervals.difference(live["ndcg_at_10"], frozen["ndcg_at_10"])
    rows = [
        Row(name, {metric: intervals.mean(of_it[metric]) for metric in wanted})
        for name, of_it in values.items()
    ]
    return Evaluated(
        "beauty_prequential",
        rows,
        f"The last fifth of everyone's acts, in rounds: each user's next act is predicted, then "
        f"all of the round are learnt; {len(live['ndcg_at_10']):,} acts predicted. Frozen: items' "
        "counts end before the fifth begins, shoppers' histories go on. Learning on gains "
        f"{gain} NDCG@10.",
    )


def _act_by_act(
    shop: LiveShop, split: LeftOut, asked: NDArray[np.int64], counting: bool
) -> Iterator[dict[str, ranking.PerUser]]:
    is_asked = np.zeros(len(split.targets), bool)
    is_asked[asked] = True
    for step in range(max(map(len, split.targets))):
        users = np.array([u for u, of_it in enumerate(split.targets) if len(of_it) > step])
        for start in range(0, len(users), _BATCH):
            some = users[start : start + _BATCH]
            predicted = some[is_asked[some]]
            if len(predicted):
                targets = [split.targets[user][step : step + 1] for user in predicted]
                yield ranking.per_user(ask(shop, predicted), targets, K)
            places = [len(split.histories[user]) + step for user in some]
            items = [split.targets[user][step] for user in some]
            shop.learn(list(map(_act, some, items, places)), counting)


# The live path -----------------------------------------------------------------------------------


def open_shop(
    beauty: Sequences,
    vectors: NDArray[np.float32],
    settings: Settings,
    user_model: UserModel | None = None,
) -> LiveShop:
    """Return a shop of which nobody has taken anything."""
    facts = [
        ItemFacts(str(number), title or "?", _FIRST_MS)
        for number, title in enumerate(beauty.titles)
    ]
    return LiveShop(settings, facts, vectors, user_model)


def learn_all(shop: LiveShop, histories: Sequence[History]) -> None:
    """Learn everyone's history, some users at a time."""
    for start in range(0, len(histories), _BATCH):
        shop.learn(
            [
                _act(user, item, place)
                for user, history in enumerate(histories[start : start + _BATCH], start)
                for place, item in enumerate(history)
            ]
        )


def ask(shop: LiveShop, users: NDArray[np.int64]) -> Lists:
    """Return what is recommended to users, shape (len(users), max(K))."""
    lists = np.full((len(users), max(K)), PADDING, np.int64)
    for start in range(0, len(users), _BATCH):
        names = [f"u{user}" for user in users[start : start + _BATCH]]
        for row, of_user in enumerate(shop.recommend(names, max(K), ASKED_MS), start):
            lists[row, : len(of_user)] = [int(item_id) for item_id in of_user]
    return lists


def _act(user: int, item: int, place: int) -> Interaction:
    return Interaction(
        event_id=f"{user}-{place}",
        user_id=f"u{user}",
        item_id=str(item),
        type="purchase",
        event_time_ms=_FIRST_MS + place * _STEP_MS,
    )
