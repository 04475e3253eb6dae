"""What the commands of ``prefstream train`` share."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.common import one_line
from stream.commands.logs import DATES

Out = Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the model.")]
Publish = Annotated[
    bool,
    typer.Option("--publish", help="DIR holds versions: add one, and put it in use."),
]
Until = Annotated[datetime | None, typer.Option(formats=DATES, help="Only acts before, UTC.")]

train = typer.Typer(
    help="Models fitted on a behaviour log, each written into a folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def place_of(out: Path, publish: bool) -> Path:
    """Return the folder that a model is written into; raises ModelError."""
    from models.versions import new_version

    return new_version(out, datetime.now(timezone.utc)) if publish else out


def tell_written(name: str, place: Path, publish: bool) -> None:
    """Put a model in use if it was to be published, and say where it is."""
    from models.versions import switch
    from models.weights import ModelError

    if publish:
        with one_line(ModelError, OSError):
            switch(place.parent, place.name)
    typer.echo(f"{name} written to {place}" + (", and in use" if publish else ""))
