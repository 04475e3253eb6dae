"""Evaluations by name, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.evaluate.report import Evaluated
from stream.evaluate.vectors import TextVectors
from stream.settings import Settings


def run_evaluations(
    names: Sequence[str],
    data: Path,
    settings: Settings,
    quick: bool,
    console: Console,
    vectors: Path | None = None,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> Iterator[Evaluated]:
    """Yield what is found for each name, as soon as it is there.

    ``console`` shows what is being done: a line that changes where it is a terminal, else a line
    for each step with the seconds since the beginning by ``monotonic``. Texts are encoded once for
    all of them, and kept in the folder ``vectors``. Raises DataMissing and ModelError.
    """
    # What an encoder says while it is loaded would be mixed with the tables.
    logging.getLogger("models").setLevel(logging.ERROR)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    started = monotonic()
    said = list[str]()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("")

        def on_step(step: str) -> None:
            said[:] = [step]
            progress.update(task, description=step)
            if not console.is_terminal:
                console.print(f"{monotonic() - started:,.0f} s: {step}", soft_wrap=True)

        def on_done(n: int, of: int) -> None:
            on_step(f"{said[0].split(' - ')[0]} - {n:,} of {of:,}")

        encode = TextVectors(vectors, on_done)
        for name in names:
            on_step(name)
            # Each by itself: torch, gensim and scikit-learn take seconds to load.
            module: Any = import_module(f"stream.evaluate.{name}")
            for evaluated in module.evaluate(data, settings, on_step, quick, encode):
                progress.stop()  # its line and the tables of the caller would be mixed
                yield evaluated
                progress.start()
