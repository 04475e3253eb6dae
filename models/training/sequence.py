"""Shoppers' items in order, and the items' texts -> SequenceParts.

The newest item of each shopper is kept aside: on it the number of epochs and the weight beside the
hybrid score are chosen. Then the network is fitted anew on everything, for so many epochs. Whoever
wants to test leaves out the test's items before.

The loss is the cross-entropy over the catalogue, which is what makes SASRec strong (Klenitskiy and
Vasilev, RecSys 2023), estimated from the item taken and a uniform sample of the others, the same
for all of a step: with 1,500 of 12,101 the softmax costs an eighth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from models.evaluation import baselines, intervals
from models.evaluation.intervals import Estimate
from models.evaluation.splits import History, leave_one_out
from models.item_index import Vectors
from models.sequence_model import SequenceParts, centred
from models.sequence_network import SequenceNetwork, Shape

#: Shoppers that the choices are made on at most, and scores of them held at once.
_MOST_ASKED, _MOST_SCORES = 3000, 50_000_000
_K = 10
#: Weights beside the hybrid score that are tried.
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
_ASKED_AT_ONCE = 256
#: A batch is cut from so many batches' shoppers sorted by length, so that little is padding.
_SORTED_BATCHES = 8
_WARM_UP_STEPS = 50


class TooLittle(ValueError):
    """Acts from which nothing can be learnt; the text says what they lack."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn. ``patience`` epochs without a better validation end it before ``epochs``;
    ``negatives`` other items stand for the catalogue in a step's loss. The validation is beside
    the hybrid score, or ``alone``."""

    dim: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 20
    by_text: bool = True
    dropout: float = 0.4
    residual_dropout: float = 0.15
    epochs: int = 8
    patience: int = 3
    batch: int = 256
    negatives: int = 1500
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    alone: bool = False


class Figures(NamedTuple):
    """Recall and NDCG at 10 on the items kept aside, with intervals."""

    recall: Estimate
    ndcg: Estimate


@dataclass(frozen=True, slots=True)
class Epoch:
    """What was reached after so many epochs: beside the hybrid score by the ``weight`` that suits
    best, alone, and by the hybrid score without what was learnt."""

    number: int
    loss: float
    weight: float
    mixed: Figures
    alone: Figures
    hybrid: Figures

    def reached(self, recipe: Recipe) -> float:
        """Return what epochs are chosen by."""
        return (self.alone if recipe.alone else self.mixed).ndcg.value


@dataclass(frozen=True, slots=True)
class Learnt:
    """Parts fitted on everything, and the epoch that was best before, with its figures.

    Where that is no better than the hybrid score alone, the parts' weight is 0.
    """

    parts: SequenceParts
    chosen: Epoch
    n_asked: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All items there are: ids and the encoder's unit vectors, (n, m), in the same order."""

    item_ids: Sequence[str]
    vectors: Vectors
    encoder_id: str


@dataclass(frozen=True, slots=True)
class Mixing:
    """The hybrid score that the fit is put beside: its a and lambda."""

    text_share: float = 0.3
    step_decay: float = 0.7


def train_sequence(
    sequences: Sequence[History],
    catalogue: Catalogue,
    recipe: Recipe,
    mixing: Mixing,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Learnt:
    """Return what is learnt of sequences of item numbers, each oldest first and no item twice.

    The same seed gives the same weights on the same machine. ``on_epoch`` is told of each epoch of
    the choosing. Raises TooLittle.
    """
    usable = [history for history in sequences if len(history) >= 2]
    left_out = leave_one_out(usable)
    if sum(len(history) > 1 for history in left_out.histories) < 2:
        raise TooLittle("expected at least two shoppers with three items each")
    texts = centred(catalogue.vectors, catalogue.vectors.mean(axis=0))
    asked = _Asked(left_out.histories, left_out.targets, catalogue, mixing)
    best: Epoch | None = None
    for number, (network, loss) in enumerate(_fitting(left_out.histories, texts, recipe), 1):
        epoch = asked.figures(network, texts, number, loss)
        on_epoch(epoch)
        if best is None or epoch.reached(recipe) > best.reached(recipe):
            best = epoch
        if number - best.number >= recipe.patience:
            break
    assert best is not None
    weight = best.weight if best.mixed.ndcg.value > best.hybrid.ndcg.value else 0.0
    return Learnt(fit_sequence(usable, catalogue, recipe, best.number, weight), best, len(asked))


def fit_sequence(
    sequences: Sequence[History], catalogue: Catalogue, recipe: Recipe, epochs: int, weight: float
) -> SequenceParts:
    """Return what is learnt of sequences as train_sequence has them by so many of the recipe's
    epochs, with nothing kept aside."""
    usable = [history for history in sequences if len(history) >= 2]
    mean = catalogue.vectors.mean(axis=0)
    fitting = _fitting(usable, centred(catalogue.vectors, mean), recipe)
    network, _ = next(islice(fitting, epochs - 1, None))
    return SequenceParts(network.eval(), catalogue.item_ids, mean, catalogue.encoder_id, weight)


# Fitting -----------------------------------------------------------------------------------------


def _fitting(
    histories: Sequence[History], texts: Vectors, recipe: Recipe
) -> Iterator[tuple[SequenceNetwork, float]]:
    """Yield the network after each epoch, with the epoch's loss."""
    learnable = [history[-(recipe.length + 1) :] for history in histories if len(history) > 1]
    rng, all_texts = np.random.default_rng(recipe.seed), torch.from_numpy(texts)
    # What else draws at random, before and between, must not change what is drawn here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = _new_network(texts, recipe)
        state = torch.get_rng_state()
    optimiser = _optimiser(network, recipe)
    n_steps = math.ceil(len(learnable) / recipe.batch) * recipe.epochs
    schedule = LambdaLR(optimiser, partial(_rate, n_steps=n_steps))
    for _ in range(recipe.epochs):
        losses, counts = list[float](), list[int]()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            network.train()
            for batch in _batches(learnable, recipe.batch, rng):
                loss = _loss(network, batch, all_texts, recipe.negatives, rng)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
                counts.append(len(batch))
            state = torch.get_rng_state()
        yield network, float(np.average(losses, weights=counts))


def _new_network(texts: Vectors, recipe: Recipe) -> SequenceNetwork:
    shape = Shape(
        text_dim=texts.shape[1],
        n_items=len(texts),
        dim=recipe.dim,
        layers=recipe.layers,
        heads=recipe.heads,
        length=recipe.length,
        by_text=recipe.by_text,
    )
    network = SequenceNetwork(
        shape, dropout=recipe.dropout, residual_dropout=recipe.residual_dropout
    )
    if recipe.by_text:
        # Directions in which the texts differ most: cosines are nearly the encoder's then.
        some = texts[np.linspace(0, len(texts) - 1, min(len(texts), 4000)).astype(np.int64)]
        directions = np.linalg.svd(some, full_matrices=False)[2][: recipe.dim]
        with torch.no_grad():
            network.text.weight[: len(directions)] = torch.from_numpy(directions)
    return network


def _optimiser(network: SequenceNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    decayed, free = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in network.named_parameters():
        # The projection begins where it is good, and places are few: neither is pulled to zero.
        is_free = parameter.ndim < 2 or name.startswith(("text.", "place."))
        (free if is_free else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _rate(step: int, n_steps: int) -> float:
    """Return the share of the learning rate: a warm-up, then half a cosine down to a twentieth."""
    falling = 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (0.05 + 0.95 * falling)


def _batches(
    histories: Sequence[History], size: int, rng: np.random.Generator
) -> Iterator[list[History]]:
    """Yield everyone once, in batches of like lengths."""
    order = rng.permutation(len(histories))
    lengths = np.array([len(history) for history in histories])
    chunk = size * _SORTED_BATCHES
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), chunk):
        some = order[start : start + chunk]
        some = some[np.argsort(lengths[some], kind="stable")]
        batches += [some[at : at + size] for at in range(0, len(some), size)]
    for place in rng.permutation(len(batches)):
        yield [histories[user] for user in batches[place]]


def _loss(
    network: SequenceNetwork,
    batch: Sequence[History],
    texts: Tensor,
    negatives: int,
    rng: np.random.Generator,
) -> Tensor:
    """Return the mean over all next items of a batch of the cross-entropy over all items."""
    before, is_told = _padded([history[:-1] for history in batch])
    after, _ = _padded([history[1:] for history in batch])
    given, wanted = before[is_told], after[is_told]
    n_items = len(texts)
    n_others = min(negatives, n_items)
    others = torch.from_numpy(rng.choice(n_items, n_others, replace=False))
    # Each item of the step once: its vector is made once, and whether by text alone decided once.
    numbers, places = torch.unique(torch.cat([others, given, wanted]), return_inverse=True)
    at_others, at_given, at_wanted = places.split([n_others, len(given), len(wanted)])
    vectors = network.items(texts[numbers], numbers)
    histories = torch.zeros(*before.shape, vectors.shape[1])
    histories[is_told] = vectors[at_given]
    found = network(histories)[is_told] * network.scale
    of_others = found @ vectors[at_others].T + math.log(n_items / n_others)
    of_others = of_others.masked_fill(wanted[:, None] == others[None], -math.inf)
    of_wanted = (found * vectors[at_wanted]).sum(dim=1)
    loss: Tensor = torch.logaddexp(of_others.logsumexp(dim=1), of_wanted) - of_wanted
    return loss.mean()


def _padded(histories: Sequence[History]) -> tuple[Tensor, Tensor]:
    """Return item numbers and where there are any, both (b, l)."""
    lengths = np.array([len(history) for history in histories])
    is_told = np.arange(lengths.max()) < lengths[:, None]
    numbers = np.zeros(is_told.shape, np.int64)
    numbers[is_told] = np.concatenate(histories)
    return torch.from_numpy(numbers), torch.from_numpy(is_told)


# Choosing ----------------------------------------------------------------------------------------


class _Asked:
    """Some shoppers, spread over all, and how far the hybrid score alone finds their targets."""

    def __init__(
        self,
        histories: Sequence[History],
        targets: Sequence[History],
        catalogue: Catalogue,
        mixing: Mixing,
    ) -> None:
        most = max(1, min(_MOST_ASKED, _MOST_SCORES // len(catalogue.item_ids), len(histories)))
        asked = np.linspace(0, len(histories) - 1, most).astype(np.int64)
        self._histories = [histories[user] for user in asked]
        self._targets = np.array([targets[user][0] for user in asked])
        score = baselines.hybrid(histories, catalogue.vectors, mixing.text_share, mixing.step_decay)
        # By reach, so that one weight suits short histories and long ones, as in models/hybrid.py.
        lengths = np.array([len(history) for history in self._histories], np.float32)
        reach = (1 - mixing.step_decay**lengths) / (1 - mixing.step_decay) / lengths
        self._hybrid = np.concatenate(
            [
                (score(self._histories[at]) / reach[at, None]).astype(np.float16)
                for at in self._slices()
            ]
        )

    def __len__(self) -> int:
        return len(self._histories)

    def figures(self, network: SequenceNetwork, texts: Vectors, number: int, loss: float) -> Epoch:
        """Return the figures of a network with the weight that suits it best."""
        ranks = np.concatenate(
            [self._ranks(at, fits) for at, fits in self._fits(network, texts)], axis=1
        )
        alone, hybrid, mixed = ranks[0], ranks[1], ranks[2:]
        best = int(np.argmax([_gains(of_it).mean() for of_it in mixed]))
        return Epoch(
            number,
            loss,
            WEIGHTS[best],
            mixed=_figures(mixed[best]),
            alone=_figures(alone),
            hybrid=_figures(hybrid),
        )

    @torch.inference_mode()
    def _fits(
        self, network: SequenceNetwork, texts: Vectors
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        network.eval()
        items = network.items(torch.from_numpy(texts), torch.arange(len(texts)))
        for at in self._slices():
            newest = [history[-network.shape.length :] for history in self._histories[at]]
            numbers, is_told = _padded(newest)
            histories = items[numbers] * is_told[..., None]
            last = is_told.sum(dim=1) - 1
            found = network(histories)[torch.arange(len(newest)), last]
            yield at, (found @ items.T).numpy()

    def _ranks(self, at: slice, fits: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the targets' ranks from 0: by the fits, by the hybrid, mixed by each weight."""
        hybrid = self._hybrid[at].astype(np.float32)
        for scores in (hybrid, fits):
            for row, history in enumerate(self._histories[at]):
                scores[row, history] = -np.inf
        mixed = (hybrid + np.float32(weight) * fits for weight in WEIGHTS)
        return np.stack([_rank(scores, self._targets[at]) for scores in (fits, hybrid, *mixed)])

    def _slices(self) -> Iterator[slice]:
        for start in range(0, len(self._histories), _ASKED_AT_ONCE):
            yield slice(start, start + _ASKED_AT_ONCE)


def _rank(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    of_targets = np.take_along_axis(scores, targets[:, None], 1)
    return np.asarray((scores > of_targets).sum(axis=1), np.int64)


def _figures(ranks: NDArray[np.int64]) -> Figures:
    return Figures(intervals.mean((ranks < _K).astype(np.float64)), intervals.mean(_gains(ranks)))


def _gains(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(ranks < _K, 1 / np.log2(ranks + 2.0), 0.0)
