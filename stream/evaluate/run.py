"""Evaluations by name, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.evaluate.report import Evaluated
from stream.settings import Settings


def run_evaluations(
    names: Sequence[str], data: Path, settings: Settings, quick: bool, console: Console
) -> Iterator[Evaluated]:
    """Yield what is found for each name, as soon as it is there.

    ``console`` shows what is being done, where it is a terminal. Raises DataMissing and ModelError.
    """
    # What an encoder says while it is loaded would be mixed with the tables.
    logging.getLogger("models").setLevel(logging.ERROR)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    for name in names:
        # Each by itself: torch, gensim and scikit-learn take seconds to load.
        module: Any = import_module(f"stream.evaluate.{name}")
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(name)

            def on_step(step: str, task: Any = task, progress: Progress = progress) -> None:
                progress.update(task, description=step)

            yield from module.evaluate(data, settings, on_step, quick)
