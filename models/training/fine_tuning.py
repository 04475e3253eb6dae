"""Fine-tuning an encoder on what shoppers did: steps, validation, early stopping, going on.

What is validated is what is served: how high the next item of somebody's history stands among all,
by the text part of the hybrid score. The best weights so far are kept, the untrained ones to begin
with, and a run that was cut off goes on at its last validation as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models.evaluation import ranking
from models.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from models.training.contrast import Loss, contrast
from models.training.examples import Batch, Batches, Example, Floats, Numbers
from models.training.journals import Journal
from models.training.trainable import Tuned

K = 10
#: Held-out examples asked at most, and items ranked for them.
_ASKED, _RANKED = 5_000, 20_000


class NothingLearnt(ValueError):
    """No weights ranked held-out choices better than the model that was begun with."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is trained. ``texts_at_once`` make a pass, ``accumulate`` passes a step. The learning
    rate rises for ``warmup`` of the steps and then falls to nothing; the loss sees cosines over
    ``temperature``. Every ``validate_every`` steps held-out choices are ranked, and after
    ``patience`` rankings without a better one it ends."""

    n_steps: int
    learning_rate: float
    loss: Loss = "info_nce"
    texts_at_once: int = 128
    accumulate: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.01
    temperature: float = 0.05
    clip: float = 1.0
    validate_every: int = 100
    patience: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Examples that nothing is learnt from, and the texts of items that are ranked for them."""

    examples: Sequence[Example]
    items: Numbers


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures on what was held out, before the training and of the best weights; what it took."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    best_step: int
    n_steps: int
    seconds: float


def tune(
    model: Tuned,
    batches: Batches,
    held_out: HeldOut,
    plan: Plan,
    work: Path,
    journals: Sequence[Journal] = (),
) -> Outcome:
    """Train, and leave the best weights in the model; goes on from what is in ``work``.

    Raises NothingLearnt, and ModelError for a damaged checkpoint.
    """
    training = _Training(model, plan, sample(held_out, plan.seed), work, journals)
    training.go(batches)
    return training.outcome()


class _Training:
    def __init__(
        self,
        model: Tuned,
        plan: Plan,
        held_out: HeldOut,
        work: Path,
        journals: Sequence[Journal],
    ) -> None:
        self._model, self._plan, self._held_out = model, plan, held_out
        self._work, self._journals = work, journals
        # Matrices decay; biases, norms and the scales of IA3 and AdaLoRA would be drawn to zero.
        decayed = [name for name, p in model.parameters.items() if p.squeeze().dim() > 1]
        others = [name for name in model.parameters if name not in decayed]
        self._names = [*decayed, *others]  # as the optimizer numbers them
        groups: list[dict[str, Any]] = [
            {"params": [model.parameters[n] for n in decayed], "weight_decay": plan.weight_decay},
            {"params": [model.parameters[n] for n in others], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate)
        self._begun_s = time.monotonic()
        found = load_checkpoint(work)
        if found is None:
            before = self._rank(0)
            found = Checkpoint(0, 0, before, before, 0.0, _copied(model.parameters))
        else:
            self._restore(found)
        self._reached = found

    def _restore(self, found: Checkpoint) -> None:
        load_parameters(self._model, found.parameters)
        self._model.remember(found.memory)
        state = self._optimizer.state_dict()
        state["state"] = {
            place: found.optimizer[name]
            for place, name in enumerate(self._names)
            if name in found.optimizer
        }
        self._optimizer.load_state_dict(state)

    def go(self, batches: Batches) -> None:
        plan, reached = self._plan, self._reached
        passes = batches.endless(plan.seed)
        if reached.step:
            next(islice(passes, reached.step * plan.accumulate - 1, None))
        for step in range(reached.step, plan.n_steps):
            if self._is_stale(step):
                break
            self._step(step, list(islice(passes, plan.accumulate)))
            if (step + 1) % plan.validate_every == 0 or step + 1 == plan.n_steps:
                self._validate(step + 1)

    def _is_stale(self, step: int) -> bool:
        since_best = step - self._reached.best_step
        return since_best >= self._plan.patience * self._plan.validate_every

    def _step(self, step: int, passes: Sequence[Batch]) -> None:
        rate = self._plan.learning_rate * share_of_rate(step, self._plan.n_steps, self._plan.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        with _dropout_of(self._plan.seed, step, self._model.device):
            for batch in passes:
                loss = self._loss(batch) / len(passes)
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        parameters = list(self._model.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._plan.clip)
        self._optimizer.step()
        self._model.stepped(step)
        self._optimizer.zero_grad()
        self._write(step + 1, {"loss": total, "learning_rate": rate, "gradient": float(norm)})

    def _loss(self, batch: Batch) -> torch.Tensor:
        device = self._model.device
        vectors = functional.normalize(self._model.vectors(batch.texts))  # (n, dim)
        anchors = functional.normalize(torch.from_numpy(batch.anchors).to(device) @ vectors)
        scores = anchors @ vectors.mT / self._plan.temperature  # (b, n)
        chosen = torch.from_numpy(batch.chosen).to(device)
        excluded = torch.from_numpy(batch.excluded).to(device)
        return contrast(self._plan.loss, scores, chosen, excluded) + self._model.penalty()

    def _validate(self, step: int) -> None:
        figures = self._rank(step)
        was = self._reached
        is_better = figures[_DECIDES] > was.best[_DECIDES]
        parameters = _copied(self._model.parameters)
        state = self._optimizer.state_dict()["state"]
        self._reached = Checkpoint(
            step=step,
            best_step=step if is_better else was.best_step,
            before=was.before,
            best=figures if is_better else was.best,
            seconds=was.seconds + time.monotonic() - self._begun_s,
            best_parameters=parameters if is_better else was.best_parameters,
            parameters=parameters,
            optimizer={self._names[place]: dict(of_it) for place, of_it in state.items()},
            memory=self._model.memory(),
        )
        self._begun_s = time.monotonic()
        save_checkpoint(self._work, self._reached)

    def _rank(self, step: int) -> Mapping[str, float]:
        figures = rank(self._model, self._held_out)
        self._write(step, figures)
        return figures

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        for journal in self._journals:
            journal.write(step, figures)

    def outcome(self) -> Outcome:
        reached = self._reached
        if not reached.best_step:
            raise NothingLearnt(
                f"after {reached.step} steps no weights rank held-out choices better than the "
                f"model as it was, {_DECIDES} {reached.before[_DECIDES]:.4f}"
            )
        load_parameters(self._model, reached.best_parameters)
        return Outcome(
            reached.before, reached.best, reached.best_step, reached.step, reached.seconds
        )


_DECIDES = f"ndcg_at_{K}"


def share_of_rate(step: int, n_steps: int, warmup: float) -> float:
    """Return how much of the learning rate a step has: up to 1 in a line, and down to 0."""
    n_warm = max(1, round(n_steps * warmup))
    if step < n_warm:
        return (step + 1) / n_warm
    return max(0.0, (n_steps - step) / max(1, n_steps - n_warm))


def load_parameters(model: Tuned, values: Mapping[str, torch.Tensor]) -> None:
    """Set the trained parameters; ``values`` has all of them."""
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            parameter.copy_(values[name])


def _copied(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().clone() for name, p in parameters.items()}


@contextmanager
def _dropout_of(seed: int, step: int, device: str) -> Iterator[None]:
    """Draw what is dropped from seed and step alone, so that a run that goes on draws the same."""
    devices = [] if device == "cpu" else [torch.device(device)]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


# What is held out --------------------------------------------------------------------------------


def sample(held_out: HeldOut, seed: int) -> HeldOut:
    """Return as much of what is held out as is asked of a catalogue in reasonable time."""
    rng = np.random.default_rng(seed)
    examples, items = held_out.examples, held_out.items
    if len(examples) > _ASKED:
        some = np.sort(rng.choice(len(examples), _ASKED, replace=False)).tolist()
        examples = [examples[n] for n in some]
    if len(items) > _RANKED:
        chosen = np.array([example.chosen for example in examples])
        items = np.union1d(chosen, rng.choice(items, _RANKED, replace=False))
    return HeldOut(examples, items)


def rank(model: Tuned, held_out: HeldOut) -> dict[str, float]:
    """Return recall and NDCG at K of the chosen among the items, by centred cosines.

    An item of the history is not asked for, as in what is served.
    """
    anchors = np.unique([text for e in held_out.examples for text in e.anchor])
    texts = np.union1d(anchors, held_out.items)
    vectors = model.encode(texts)
    items = np.searchsorted(texts, held_out.items)
    vectors = vectors - vectors[items].mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    place = {int(text): n for n, text in enumerate(held_out.items.tolist())}
    lists, targets = [], []
    for start in range(0, len(held_out.examples), 512):
        some = held_out.examples[start : start + 512]
        lists.append(_lists(some, texts, vectors, items, place))
        targets += [np.array([place[example.chosen]]) for example in some]
    figures = ranking.per_user(np.concatenate(lists), targets, (K,))
    return {name: float(figures[name].mean()) for name in (f"recall_at_{K}", _DECIDES)}


def _lists(
    examples: Sequence[Example],
    texts: Numbers,
    vectors: Floats,
    items: Numbers,
    place: Mapping[int, int],
) -> Numbers:
    """Return the places of the best items, best first, shape (len(examples), K)."""
    asked = np.zeros((len(examples), vectors.shape[1]), np.float32)
    for row, example in enumerate(examples):
        weights = np.array(example.weights, np.float32)
        asked[row] = weights @ vectors[np.searchsorted(texts, example.anchor)]
    scores = asked @ vectors[items].T  # (len(examples), n_items)
    for row, example in enumerate(examples):
        scores[row, [place[text] for text in example.anchor if text in place]] = -math.inf
    k = min(K, scores.shape[1])
    some = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)
