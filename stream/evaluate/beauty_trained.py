"""Amazon Beauty with what is learnt: the live path with a sequence model beside the hybrid score.

The same protocol and test as beauty.py. Nothing but the histories is learnt from or chosen on: the
epochs and the weight are chosen on each shopper's item before the test's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.evaluation import baselines, intervals, ranking
from models.evaluation.baselines import Baseline
from models.evaluation.ranking import Lists
from models.evaluation.splits import LeftOut, leave_one_out
from models.sequence_model import SequenceModel
from models.training.sequence import Catalogue, Epoch, Learnt, Mixing, Recipe, train_sequence
from models.weights import encoder_id, resolve
from stream.evaluate.beauty import QUICK_USERS, K, ask, learn_all, open_shop
from stream.evaluate.datasets import Sequences, load_amazon_beauty
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.shop import encoded
from stream.settings import Settings

RECIPE = Recipe()
#: Chosen by its own NDCG@10, not beside the hybrid score: it is what is to be beaten.
IDS_ALONE = Recipe(epochs=10, patience=2, by_text=False, alone=True)
#: Seen fewer times than this in the histories, an item is rare.
RARE = 5
_TRAINED, _UNTRAINED = "live path with the sequence model", "live path, no training"
_ALONE, _IDS = "the sequence model alone", "the same network of ids alone"


def evaluate(
    data: Path, settings: Settings, on_step: OnStep, quick: bool = False
) -> Iterator[Evaluated]:
    """Yield all targets, then the rare ones; ``quick`` learns for an epoch and asks a few."""
    beauty = load_amazon_beauty(data)
    on_step(f"encoding {beauty.n_items:,} titles")
    vectors = encoded(beauty.titles, settings)
    split = leave_one_out(beauty.users)
    asked = np.arange(len(beauty.users))[:: len(beauty.users) // QUICK_USERS if quick else 1]
    item_ids = [str(number) for number in range(beauty.n_items)]
    catalogue = Catalogue(item_ids, vectors, encoder_id(resolve(settings.encoder)))
    mixing = Mixing(settings.text_share, settings.step_decay)

    def learn(name: str, recipe: Recipe) -> Learnt:
        def tell(epoch: Epoch) -> None:
            on_step(f"{name}: epoch {epoch.number}, NDCG@10 {epoch.reached(recipe):.4f}")

        on_step(name)
        recipe = replace(recipe, epochs=1) if quick else recipe
        return train_sequence(split.histories, catalogue, recipe, mixing, tell)

    learnt = learn("the sequence model", RECIPE)
    model = SequenceModel(learnt.parts, "sequence")
    lists = _live(beauty, vectors, split, asked, settings, model, on_step)
    histories = [split.histories[user] for user in asked]
    ids = SequenceModel(learn(_IDS, IDS_ALONE).parts, "ids")
    for name, of_it in ((_ALONE, model), (_IDS, ids)):
        on_step(name)
        lists[name] = baselines.ranked(fits(of_it, item_ids, vectors), histories, max(K))
    yield from _tables(lists, split, asked, beauty.n_items, learnt)


def fits(model: SequenceModel, item_ids: list[str], vectors: NDArray[np.float32]) -> Baseline:
    """Rank by what was learnt alone; ``vectors`` (n, dim) are the encoder's of all items."""
    items = model.items(item_ids, vectors)
    newest = model.history_items
    return lambda some: np.asarray(
        model.shoppers([items[history[-newest:]] for history in some]) @ items.T, np.float32
    )


def _live(
    beauty: Sequences,
    vectors: NDArray[np.float32],
    split: LeftOut,
    asked: NDArray[np.int64],
    settings: Settings,
    model: SequenceModel,
    on_step: OnStep,
) -> dict[str, Lists]:
    on_step("the live path: learning")
    without_mmr = settings.model_copy(update={"diversity": 0.0})
    shop = open_shop(beauty, vectors, without_mmr, model)
    learn_all(shop, split.histories)
    lists = {}
    for name, used in ((_TRAINED, model), (_UNTRAINED, None)):
        on_step(f"{name}: asking")
        shop.use(used)
        lists[name] = ask(shop, asked)
    return lists


def _tables(
    lists: Mapping[str, Lists],
    split: LeftOut,
    asked: NDArray[np.int64],
    n_items: int,
    learnt: Learnt,
) -> Iterator[Evaluated]:
    targets = [split.targets[user] for user in asked]
    values = {name: ranking.per_user(of_it, targets, K) for name, of_it in lists.items()}
    seen = np.bincount(np.concatenate(split.histories), minlength=n_items)
    is_rare = np.array([seen[of_user[0]] < RARE for of_user in targets])
    chosen = learnt.chosen
    how = (
        f"The sequence model's {chosen.number} epochs and weight {chosen.weight} beside the hybrid "
        f"score were chosen on the item before the last of {learnt.n_asked:,} users (NDCG@10 there "
        f"{chosen.mixed.ndcg}); then it was learnt anew from all but the last."
    )
    everyone = np.ones(len(asked), bool)
    for name, which, whom in (
        ("beauty", everyone, f"Leave one out, all {n_items:,} items ranked, {len(asked):,} users."),
        (
            "beauty_rare",
            is_rare,
            f"Of these the {is_rare.sum():,} users whose target was seen fewer than {RARE} times.",
        ),
    ):
        found = {model: {m: v[which] for m, v in of_it.items()} for model, of_it in values.items()}
        yield Evaluated(name, _rows(found), f"{whom} {how} {_gains(found)}")


def _rows(values: Mapping[str, Mapping[str, ranking.PerUser]]) -> list[Row]:
    wanted = ("recall_at_5", "recall_at_10", "recall_at_20", "ndcg_at_10", "mrr_at_10")
    return [
        Row(name, {metric: intervals.mean(of_it[metric]) for metric in wanted})
        for name, of_it in values.items()
    ]


def _gains(values: Mapping[str, Mapping[str, ranking.PerUser]]) -> str:
    said = []
    for other in (_UNTRAINED, _IDS):
        gain = intervals.difference(values[_TRAINED]["recall_at_10"], values[other]["recall_at_10"])
        said.append(f"{gain} over '{other}'")
    return f"Gains in Recall@10: {', '.join(said)}."
