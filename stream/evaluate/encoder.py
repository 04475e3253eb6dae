"""Fine-tuning the encoder: what Amazon Beauty's titles gain, by mode, over the encoder as it is.

Leave one out, as in stream/evaluate/beauty.py: learnt from all acts but the last two of everyone,
ended by the one before the last, asked about the last once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bert_network import choose_device
from models.evaluation import baselines, intervals, ranking
from models.evaluation.ranking import PerUser
from models.evaluation.splits import leave_one_out
from models.training.encoder import LEARNING_RATES, TEXTS_AT_ONCE, Behaviour, Request, fit_encoder
from models.training.examples import next_items, together
from models.training.fine_tuning import HeldOut, NothingLearnt, Outcome, Plan
from models.training.trainable import How, Mode
from models.weights import ModelFiles, resolve
from stream.evaluate.datasets import Sequences, load_amazon_beauty
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.vectors import Encode, encoded
from stream.settings import Settings

K = 10
_METRICS = ("recall_at_10", "ndcg_at_10")
#: What is tried, and how many steps of it.
_STEPS: Mapping[Mode, int] = {"projection": 600, "full": 300}
_MAX_TOKENS = 32


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield one table: the titles alone, and the hybrid score, by what was trained.

    Every weight is trained on a GPU alone: on a CPU it takes an hour. ``quick`` makes a few steps
    of the quickest mode.
    """
    beauty = load_amazon_beauty(data)
    base = resolve(settings.encoder)
    behaviour = beauty_behaviour(beauty, settings.step_decay)
    split = leave_one_out(beauty.users)

    def ask(vectors: NDArray[np.float32]) -> dict[str, dict[str, PerUser]]:
        found = {}
        for name, share in (("titles", 1.0), ("hybrid", settings.text_share)):
            score = baselines.hybrid(split.histories, vectors, share, settings.step_decay)
            lists = baselines.ranked(score, split.histories, K)
            found[name] = ranking.per_user(lists, split.targets, (K,))
        return found

    on_step(f"encoding {beauty.n_items:,} titles")
    found = {"as it is": ask(encode(beauty.titles, settings))}
    took = []
    on_gpu = choose_device(settings.encoder_device) != "cpu"
    for mode in tuple(_STEPS) if on_gpu and not quick else ("projection",):
        on_step(f"training, {mode}")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "encoder"
            try:
                outcome = _fit(out, base, behaviour, mode, quick, settings)
            except NothingLearnt as error:
                took.append(f"{mode}: {error}")
                continue
            on_step(f"encoding by {mode}")
            tuned = settings.model_copy(update={"encoder": str(out)})
            found[mode] = ask(encoded(beauty.titles, tuned))
        took.append(f"{mode} {outcome.seconds:.0f} s, best of {outcome.n_steps} steps")
    yield Evaluated("beauty_encoder", _rows(found), _note(found, took, base))


def beauty_behaviour(beauty: Sequences, step_decay: float) -> Behaviour:
    """Return all acts but the last two of everyone to learn from, the one before the last held
    out; items of one title are one."""
    numbers: dict[str, int] = {}
    of_item = np.array([numbers.setdefault(t or "?", len(numbers)) for t in beauty.titles])
    groups, asked = [], []
    for user in beauty.users:
        taken: list[int] = of_item[user[:-1]].tolist()
        groups += together(next_items(taken[:-1], step_decay))
        asked += next_items(taken, step_decay, first=len(taken) - 1)
    items = np.arange(len(numbers))
    return Behaviour(list(numbers), [False] * len(numbers), groups, HeldOut(asked, items))


def _fit(
    out: Path, base: ModelFiles, behaviour: Behaviour, mode: Mode, quick: bool, settings: Settings
) -> Outcome:
    plan = Plan(_STEPS[mode], LEARNING_RATES[mode], texts_at_once=TEXTS_AT_ONCE[mode])
    if quick:
        plan = replace(plan, n_steps=50, validate_every=50)
    how = How(mode, plan.n_steps)
    request = Request(how, plan, _MAX_TOKENS, device=settings.encoder_device)
    return fit_encoder(out, base, behaviour, request, {}).outcome


def _rows(found: Mapping[str, Mapping[str, Mapping[str, PerUser]]]) -> list[Row]:
    """Return our rows, what gained most first, and the encoder as it is last."""
    rows = [
        Row(
            f"{part}, {model}",
            {metric: intervals.mean(values[metric]) for metric in _METRICS},
        )
        for model, parts in found.items()
        for part, values in parts.items()
    ]
    return sorted(rows, key=lambda row: -row.estimates["ndcg_at_10"].value)


def _note(
    found: Mapping[str, Mapping[str, Mapping[str, PerUser]]],
    took: Sequence[str],
    base: ModelFiles,
) -> str:
    before = found["as it is"]
    gains = [
        f"{model} on {part}: {_gain(values, before[part])}"
        for model, parts in found.items()
        if model != "as it is"
        for part, values in parts.items()
    ]
    return (
        f"Leave one out; {base.name}, fine-tuned on all acts but the last two of everyone, ended "
        f"by the one before the last, asked about the last. Gains in NDCG@10: {'; '.join(gains)}. "
        f"Time: {'; '.join(took)}."
    )


def _gain(values: Mapping[str, PerUser], before: Mapping[str, PerUser]) -> str:
    one, other = values["ndcg_at_10"], before["ndcg_at_10"]
    share = one.mean() / other.mean() - 1
    return f"{share:+.1%}, {intervals.difference(one, other)}"
