"""Behaviour, and an encoder to begin with -> a fine-tuned encoder's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.bert_encoder import open_tokenizer
from models.bert_network import choose_device
from models.encoder_folder import save_encoder
from models.model_folder import check_files, check_new
from models.training.checkpoints import FILE as CHECKPOINT
from models.training.checkpoints import load_checkpoint
from models.training.examples import Batches, Example, hard_negatives, known
from models.training.fine_tuning import HeldOut, Outcome, Plan, tune
from models.training.journals import Journal, TensorBoard, WeightsAndBiases
from models.training.trainable import How, Mode, Tuned, prepare
from models.weights import ModelError, ModelFiles, encoder_id

#: The highest rate of each mode where none is given. The projection's was tried on Amazon Beauty's
#: item before the last; the others are what their papers and sentence-transformers use.
LEARNING_RATES: Mapping[Mode, float] = {
    "full": 1e-4,
    "frozen": 1e-4,
    "lora": 1e-3,
    "adalora": 2e-3,
    "ia3": 5e-3,
    "projection": 1e-3,
}
#: Different texts of a pass: a projection's cost next to nothing, and more negatives are better.
TEXTS_AT_ONCE: Mapping[Mode, int] = {**dict.fromkeys(LEARNING_RATES, 128), "projection": 1024}
_RUN = "run.json"


class TooLittle(ValueError):
    """A log from which nothing can be learnt; the text says what it lacks."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Texts by number, which of them are queries, and what was chosen after what: groups of one
    shopper's examples to learn from, and others to be asked of."""

    texts: Sequence[str]
    is_query: Sequence[bool]
    groups: Sequence[Sequence[Example]]
    held_out: HeldOut


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be made of it; ``max_tokens`` of a text are read in training."""

    how: How
    plan: Plan
    max_tokens: int = 64
    with_hard_negatives: bool = False
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Made:
    """A model that was written."""

    name: str
    outcome: Outcome


def fit_encoder(
    out: Path,
    base: ModelFiles,
    behaviour: Behaviour,
    request: Request,
    facts: Mapping[str, Any],
    journals: Sequence[Journal] = (),
    wandb_project: str = "",
) -> Made:
    """Fine-tune an encoder and write it into a new folder, with ``facts`` in its manifest.

    A run that was cut off goes on: what it has reached, and TensorBoard's events, lie in
    ``work_folder(out)``. Raises TooLittle, NothingLearnt, ModelError, OSError, BadDevice, and
    ImportError without what the mode or a journal needs.
    """
    check_new(out)
    check_files(base.folder)
    if not behaviour.groups or not behaviour.held_out.examples:
        raise TooLittle("expected choices to learn from, and some behind them to be asked of")
    work = work_folder(out)
    options = _options(base, request)
    _claim(work, {**options, "examples": _digest(behaviour)})
    reached = load_checkpoint(work)
    writers: list[Journal] = [
        *journals,
        TensorBoard(work / "tensorboard", 0 if reached is None else reached.step + 1),
    ]
    if wandb_project:
        writers.append(WeightsAndBiases(wandb_project, work, options))
    try:
        model, outcome = _tuned(base, behaviour, request, work, writers)
    finally:
        for writer in writers:
            writer.close()
    stated = {
        **facts,
        "base": options["base"],
        "options": options,
        "validation": {"before": dict(outcome.before), "after": dict(outcome.after)},
        "training": {
            "n_examples": sum(map(len, behaviour.groups)),
            "n_held_out": len(behaviour.held_out.examples),
            "n_texts": len(behaviour.texts),
            "best_step": outcome.best_step,
            "n_steps": outcome.n_steps,
            "seconds": round(outcome.seconds, 1),
        },
    }
    plain, dense = model.merged()
    name = save_encoder(out, plain, dense, base, stated)
    for file in (CHECKPOINT, _RUN):
        (work / file).unlink()
    return Made(name, outcome)


def work_folder(out: Path) -> Path:
    """Return where a training keeps what it needs until its model is written."""
    return out.with_name(out.name + ".training")


def _tuned(
    base: ModelFiles,
    behaviour: Behaviour,
    request: Request,
    work: Path,
    journals: Sequence[Journal],
) -> tuple[Tuned, Outcome]:
    tokenizer = open_tokenizer(base, min(request.max_tokens, base.max_tokens or request.max_tokens))
    prefixed = [
        base.prefix("query" if is_query else "passage") + text
        for text, is_query in zip(behaviour.texts, behaviour.is_query, strict=True)
    ]
    tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(prefixed)]
    model = prepare(base, tokens, request.how, choose_device(request.device), request.plan.seed)
    negatives = None
    if request.with_hard_negatives:
        # Once, by the model as it is: near to what was taken, and not taken with it.
        n_texts = len(behaviour.texts)
        asked = np.unique([e.anchor[-1] for group in behaviour.groups for e in group])
        negatives = hard_negatives(
            model.encode(np.arange(n_texts)),
            known(behaviour.groups, n_texts),
            asked,
            behaviour.held_out.items,
        )
    batches = Batches(behaviour.groups, len(behaviour.texts), request.plan.texts_at_once, negatives)
    return model, tune(model, batches, behaviour.held_out, request.plan, work, journals)


def _options(base: ModelFiles, request: Request) -> dict[str, Any]:
    return {
        "base": encoder_id(base),
        **asdict(request.how),
        **asdict(request.plan),
        "max_tokens": request.max_tokens,
        "with_hard_negatives": request.with_hard_negatives,
    }


def _digest(behaviour: Behaviour) -> str:
    digest = hashlib.sha256()
    for part in (behaviour.texts, behaviour.groups, behaviour.held_out.examples):
        for one in part:
            digest.update(repr(one).encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def _claim(work: Path, run: Mapping[str, Any]) -> None:
    """Note what is trained here; raise ModelError where something else was begun."""
    path = work / _RUN
    text = json.dumps(run, indent=2) + "\n"
    if path.is_file() and path.read_text() != text:
        raise ModelError(
            f"{work}: holds a training begun with other data or options; go on with those, or "
            "remove it"
        )
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
