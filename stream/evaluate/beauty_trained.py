"""Amazon Beauty with what is learnt: the live path with a sequence model beside the hybrid score,
and with a ranker in its place.

The same protocol and test as beauty.py. Nothing but the histories is learnt from or chosen on: the
epochs and the weight are chosen on each shopper's item before the test's. The ranker learns from
the item before that, with a sequence model that has not seen it; its chances and the strength of
MMR are chosen on the item before the test's, with one that has not seen that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.evaluation import baselines, intervals, ranking
from models.evaluation.baselines import Baseline
from models.evaluation.ranking import Lists
from models.evaluation.splits import LeftOut, leave_one_out
from models.learnt_ranking import Choices
from models.sequence_model import SequenceModel
from models.trained_ranker import TrainedRanker
from models.training.ranker import Fitted, fit_ranker, joined
from models.training.sequence import (
    Catalogue,
    Epoch,
    Learnt,
    Mixing,
    Recipe,
    fit_sequence,
    train_sequence,
)
from models.weights import encoder_id, resolve
from stream.evaluate.beauty import ASKED_MS, QUICK_USERS, K, ask, learn_all, open_shop
from stream.evaluate.datasets import Sequences, load_amazon_beauty
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.shop import LiveShop
from stream.evaluate.vectors import Encode, encoded
from stream.settings import Settings
from stream.trained import conditions_of
from stream.training.ranker import ASKED_AT_ONCE, Question, Trial, questions_of

RECIPE = Recipe()
#: Chosen by its own NDCG@10, not beside the hybrid score: it is what is to be beaten.
IDS_ALONE = Recipe(epochs=10, patience=2, by_text=False, alone=True)
#: Shoppers that the ranker learns from, and that it is tried on.
RANKER_USERS, TRIAL_USERS = 8_000, 3_000
#: Seen fewer times than this in the histories, an item is rare.
RARE = 5
_RANKED, _RANKED_ALONE = "live path, sequence model and ranker", "live path, ranker alone"
_TRAINED, _UNTRAINED = "live path with the sequence model", "live path, no training"
_ALONE, _IDS = "the sequence model alone", "the same network of ids alone"


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield all targets, then the rare ones; ``quick`` learns for an epoch and asks a few."""
    beauty = load_amazon_beauty(data)
    on_step(f"encoding {beauty.n_items:,} titles")
    vectors = encode(beauty.titles, settings)
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
    shops = _Shops(beauty, vectors, settings.model_copy(update={"diversity": 0.0}), on_step)

    def unseen(back: int) -> SequenceModel:
        """Return the model as it was before so many items more."""
        histories, chosen = leave_one_out(beauty.users, back).histories, learnt.chosen
        epochs = min(chosen.number, RECIPE.epochs)
        parts = fit_sequence(histories, catalogue, RECIPE, epochs, learnt.parts.weight)
        return SequenceModel(parts, f"sequence-{back}")

    rankers = _rankers(shops, unseen, catalogue.encoder_id, len(asked))
    lists = _live(shops, asked, model, rankers)
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


@dataclass(frozen=True, slots=True)
class _Shops:
    """Opens the shop as it was before each shopper's last items."""

    beauty: Sequences
    vectors: NDArray[np.float32]
    settings: Settings
    on_step: OnStep

    def opened(self, back: int, model: SequenceModel) -> tuple[LiveShop, LeftOut]:
        """Return the shop before the targets, and these; ``back`` as in leave_one_out."""
        self.on_step(f"the live path: learning all but the last {back + 1}")
        split = leave_one_out(self.beauty.users, back)
        shop = open_shop(self.beauty, self.vectors, self.settings, model)
        learn_all(shop, split.histories)
        return shop, split


def _rankers(
    shops: _Shops, unseen: Callable[[int], SequenceModel], encoder: str, n_asked: int
) -> dict[bool, TrainedRanker]:
    """Return a ranker for use with the sequence model, and one without."""
    fitted: dict[bool, Fitted] = {}
    model = unseen(2)
    shop, split = shops.opened(2, model)
    for with_model in (True, False):
        shops.on_step("asking what a ranker learns from")
        shop.use(model if with_model else None)
        some = _spread(len(split.targets), min(n_asked, RANKER_USERS))
        parts = [questions_of(*choices) for choices in _asked(shop, split, some, shops.settings)]
        fitted[with_model] = fit_ranker(joined(parts))
    model = unseen(1)
    shop, split = shops.opened(1, model)
    rankers: dict[bool, TrainedRanker] = {}
    for with_model in (True, False):
        shops.on_step("trying the ranker")
        conditions = conditions_of(shops.settings, encoder, with_model)
        used = model if with_model else None
        shop.use(used)
        trial = Trial(shop, used, fitted[with_model], conditions)
        some = _spread(len(split.targets), min(n_asked, TRIAL_USERS))
        for choices, questions in _asked(shop, split, some, shops.settings):
            trial.ask(choices, questions, ASKED_MS)
        rankers[with_model] = TrainedRanker(trial.best()[0], "ranker")
    return rankers


def _spread(n: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def _asked(
    shop: LiveShop, split: LeftOut, users: NDArray[np.int64], settings: Settings
) -> Iterator[tuple[Choices, list[Question]]]:
    """Yield what could be chosen for users, and what they took."""
    for start in range(0, len(users), ASKED_AT_ONCE):
        some = users[start : start + ASKED_AT_ONCE].tolist()
        questions = [Question(f"u{u}", frozenset([str(split.targets[u][0])])) for u in some]
        names = [question.user_id for question in questions]
        yield shop.choices(names, settings.top_k, ASKED_MS), questions


def _live(
    shops: _Shops,
    asked: NDArray[np.int64],
    model: SequenceModel,
    rankers: Mapping[bool, TrainedRanker],
) -> dict[str, Lists]:
    shop, _ = shops.opened(0, model)
    lists = {}
    for name, used, ranker in (
        (_RANKED, model, rankers[True]),
        (_TRAINED, model, None),
        (_RANKED_ALONE, None, rankers[False]),
        (_UNTRAINED, None, None),
    ):
        shops.on_step(f"{name}: asking")
        shop.use(used, ranker)
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
    for other in (_TRAINED, _UNTRAINED, _IDS):
        gain = intervals.difference(values[_RANKED]["ndcg_at_10"], values[other]["ndcg_at_10"])
        said.append(f"{gain} over '{other}'")
    return f"The first gains in NDCG@10: {', '.join(said)}."
