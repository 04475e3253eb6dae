"""What the commands of ``prefstream train`` share."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.logs import DATES

Out = Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the model.")]
Until = Annotated[datetime | None, typer.Option(formats=DATES, help="Only acts before, UTC.")]

train = typer.Typer(
    help="Models fitted on a behaviour log, each written into a folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
