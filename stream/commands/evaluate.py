"""``prefstream evaluate``: the quality tables of the README."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from stream.commands.common import CommandFailed, one_line, settings_of
from stream.evaluate.names import NAMES


def evaluate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"{', '.join(NAMES)}, or all of them: all.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            envvar="PREFSTREAM_DATA", file_okay=False, help="The folder with a folder per data set."
        ),
    ],
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Write the figures there too."),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(file_okay=False, help="Draw them into this folder.")
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Keep texts' vectors there, for the next time."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ask fewer: shows that it runs, with wide intervals.")
    ] = False,
) -> None:
    """Measure models on real data, beside what they must beat.

    Prints a table per task, with 95 % intervals by the bootstrap.
    """
    if name not in (*NAMES, "all"):
        raise CommandFailed(f"no evaluation is called {name}: there is {', '.join(NAMES)}, all", 2)
    for folder in (json and json.parent, plots, vectors):
        if folder and not folder.is_dir():
            raise CommandFailed(f"there is no folder {folder}", 2)
    settings = settings_of()
    # Many small products: more threads wait for each other. The library reads it when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from stream.evaluate.run import run_evaluations
    except ImportError as error:
        raise CommandFailed(f"{error}: evaluations need `pip install prefstream[train]`") from None
    from rich.console import Console

    from models.weights import ModelError
    from stream.evaluate.datasets import DataMissing
    from stream.evaluate.report import Evaluated, print_evaluated, write_json, write_plots

    console, found = Console(), list[Evaluated]()
    # What is drawn must not mix with tables that go to a file.
    progress = console if console.is_terminal else Console(stderr=True)
    names = NAMES if name == "all" else (name,)
    with one_line(DataMissing, ModelError):
        for evaluated in run_evaluations(
            names, data, settings, quick, progress, vectors, monotonic
        ):
            print_evaluated(console, evaluated)
            found.append(evaluated)
            # At once: all of them take an hour, and the last may be the one that fails.
            with one_line(OSError):
                if plots is not None:
                    write_plots(plots, evaluated)
                if json is not None:
                    write_json(json, found)
