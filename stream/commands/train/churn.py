"""``prefstream train churn``."""

from __future__ import annotations

import typer

from stream.commands.common import CommandFailed, one_line, settings_of
from stream.commands.logs import File, Format, Items, Topic, epoch_ms, known_topic
from stream.commands.train.options import Out, Publish, Until, place_of, tell_written, train


@train.command()
def churn(
    file: File,
    format: Format,
    out: Out,
    publish: Publish = False,
    until: Until = None,
    topic: Topic = None,
    items: Items = None,
) -> None:
    """Fit who will buy nothing within a horizon, and write the model into a folder.

    Folds the log as the workers do, learns from several moments of its second half, and prints
    figures with 95 % intervals of a fit on an earlier part, asked about a later one. Use it by
    PREFSTREAM_CHURN_MODEL=DIR.
    """
    known_topic(topic)
    settings = settings_of()
    try:
        from models.training.churn import TooLittle
        from stream.training.churn import train_into
    except ImportError as error:
        raise CommandFailed(f"{error}: training needs `pip install prefstream[train]`") from None
    from models.weights import ModelError
    from stream.formats import BadSource, ReadReport, read, within

    with one_line(BadSource, TooLittle, ModelError, OSError, ImportError):
        place = place_of(out, publish)
        records = read(file, format.value, ReadReport(), items=items, topic=topic)
        made = train_into(
            place, within(records, until_ms=epoch_ms(until)), settings.churn_horizon_days
        )
    validation = made.validation
    for name, figure in validation.figures.items():
        typer.echo(f"{name} {figure}")
    typer.echo(
        f"asked about {validation.n_customers} customers and {validation.horizon_days:.0f} days, "
        "behind all that was learnt for it"
    )
    tell_written(made.name, place, publish)
