"""``prefstream train encoder``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.common import CommandFailed, one_line, settings_of
from stream.commands.logs import File, Format, Items, Topic, epoch_ms, known_topic
from stream.commands.train.options import Out, Until, train

if TYPE_CHECKING:
    from models.training.journals import Journal


class EncoderMode(Enum):
    """The same names as models.training.trainable.Mode, which is not loaded for a help text."""

    FULL = "full"
    FROZEN = "frozen"
    LORA = "lora"
    ADALORA = "adalora"
    IA3 = "ia3"
    PROJECTION = "projection"


class EncoderLoss(Enum):
    INFO_NCE = "info_nce"
    PAIRWISE = "pairwise"


class EncoderObjective(Enum):
    HISTORY = "history"
    PAIRS = "pairs"


class Precision(Enum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@train.command()
def encoder(
    file: File,
    format: Format,
    out: Out,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with it; default: the settings'.")
    ] = None,
    mode: Annotated[EncoderMode, typer.Option(help="What is trained.")] = EncoderMode.PROJECTION,
    objective: Annotated[
        EncoderObjective,
        typer.Option(help="What speaks for an item: the acts before it, or one near it."),
    ] = EncoderObjective.HISTORY,
    loss: Annotated[
        EncoderLoss, typer.Option(help="Against all others of a batch, or one by one.")
    ] = EncoderLoss.INFO_NCE,
    hard_negatives: Annotated[
        bool, typer.Option("--hard-negatives", help="Add texts that are near, but not chosen.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="The highest; default: the mode's.")
    ] = None,
    texts: Annotated[
        int | None,
        typer.Option(min=8, help="Different texts of a pass; default: 1024 of projection, 128."),
    ] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Passes of a step.")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0.001, help="The loss sees cosines over it.")
    ] = 0.05,
    rank: Annotated[int, typer.Option(min=1, help="Of lora's and adalora's matrices.")] = 16,
    frozen_layers: Annotated[
        int | None, typer.Option(min=0, help="Of mode frozen; default: half of them.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=8, help="Read of a text, in training.")] = 64,
    precision: Annotated[
        Precision, typer.Option(help="auto: bfloat16 where the device computes it.")
    ] = Precision.AUTO,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute twice what memory cannot hold.")
    ] = False,
    held_out: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="The last share of acts, to be asked of.")
    ] = 0.1,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 100,
    patience: Annotated[
        int, typer.Option(min=1, help="End after so many validations without a better one.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    until: Until = None,
    topic: Topic = None,
    items: Items = None,
) -> None:
    """Fine-tune the encoder on what shoppers chose, and write it into a folder.

    What is chosen after what comes nearer; the last acts of the log are asked of, and the best
    weights kept. A run that was cut off goes on when it is started again: it keeps what it needs,
    and TensorBoard's events, in DIR.training. Use it by PREFSTREAM_ENCODER=DIR.
    """
    known_topic(topic)
    settings = settings_of()
    try:
        from models.training.encoder import (
            LEARNING_RATES,
            TEXTS_AT_ONCE,
            Request,
            TooLittle,
            fit_encoder,
            work_folder,
        )
        from models.training.fine_tuning import NothingLearnt, Plan
        from models.training.trainable import How
        from stream.training.encoder import read_behaviour
    except ImportError as error:
        raise CommandFailed(f"{error}: training needs `pip install prefstream[train]`") from None
    from models.bert_network import BadDevice
    from models.encoder import EncoderUnavailable
    from models.weights import ModelError, resolve
    from stream.formats import BadSource, ReadReport, read, within

    plan = Plan(
        n_steps=steps,
        learning_rate=learning_rate or LEARNING_RATES[mode.value],
        loss=loss.value,
        texts_at_once=texts or TEXTS_AT_ONCE[mode.value],
        accumulate=accumulate,
        temperature=temperature,
        validate_every=validate_every,
        patience=patience,
        seed=seed,
    )
    how = How(mode.value, steps, rank, frozen_layers, precision.value, checkpointing)
    request = Request(how, plan, max_tokens, hard_negatives, settings.encoder_device)
    expected = (BadSource, TooLittle, NothingLearnt, ModelError, OSError, ImportError)
    with one_line(*expected, BadDevice, EncoderUnavailable):
        files = resolve(base or settings.encoder)
        records = read(file, format.value, ReadReport(), items=items, topic=topic)
        behaviour, facts = read_behaviour(
            within(records, until_ms=epoch_ms(until)),
            settings.weights,
            settings.step_decay,
            objective.value,
            held_out,
        )
        with _progress(steps) as journal:
            made = fit_encoder(
                out, files, behaviour, request, facts, [journal], settings.wandb_project
            )
    outcome = made.outcome
    for name, value in outcome.after.items():
        typer.echo(f"{name} {value:.4f}, before {outcome.before[name]:.4f}")
    typer.echo(
        f"asked about {len(behaviour.held_out.examples)} choices behind all that was learnt from; "
        f"best of {outcome.n_steps} steps: {outcome.best_step}; {outcome.seconds:.0f} s"
    )
    typer.echo(f"{made.name} written to {out}; TensorBoard's events are in {work_folder(out)}")


@contextmanager
def _progress(n_steps: int) -> Iterator[Journal]:
    """Show how far a training is, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from stream.training.progress import ProgressJournal

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield ProgressJournal(progress, n_steps)
