"""``prefstream train sentiment``."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.common import CommandFailed, one_line, settings_of
from stream.commands.logs import Topic, known_topic
from stream.commands.train.options import Out, Publish, place_of, tell_written, train

if TYPE_CHECKING:
    from stream.training.sentiment import RatedReview


class ReviewFormat(Enum):
    """Logs that hold reviews, as in LogFormat, or a table."""

    TABLE = "table"
    JSONL = "jsonl"
    AMAZON = "amazon"


@train.command()
def sentiment(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="May be gzipped."),
    ],
    out: Out,
    publish: Publish = False,
    format: Annotated[
        ReviewFormat,
        typer.Option(
            help="What the files are; a table is CSV with a text (or review) and a rating (1-5) "
            "or label (0, 1), and perhaps a title."
        ),
    ] = ReviewFormat.TABLE,
    topic: Topic = None,
) -> None:
    """Fit what reviews say of their writers, and write the model into a folder.

    Learns from reviews with stars, of any number of languages, and reads their texts by
    PREFSTREAM_ENCODER; the model is for that one alone. Prints figures with 95 % intervals of
    reviews held out. Use it by PREFSTREAM_SENTIMENT_MODEL=DIR.
    """
    known_topic(topic)
    settings = settings_of()
    try:
        from models.training.sentiment import TooLittle
        from stream.training.sentiment import train_into
    except ImportError as error:
        raise CommandFailed(f"{error}: training needs `pip install prefstream[train]`") from None
    from models.bert_network import BadDevice
    from models.encoder import EncoderUnavailable
    from models.weights import ModelError
    from stream.encoders import open_encoder
    from stream.formats import BadSource
    from stream.replay import progress_bar

    with one_line(BadSource, TooLittle, ModelError, BadDevice, EncoderUnavailable, OSError):
        place = place_of(out, publish)
        reviews = [review for file in files for review in _reviews(file, format, topic)]
        with progress_bar(len(reviews)) as on_encoded:
            made = train_into(place, reviews, open_encoder(settings), on_encoded)
    validation = made.validation
    for name, figure in validation.figures.items():
        typer.echo(f"{name} {figure}")
    typer.echo(f"asked about {validation.n_reviews} of {made.n_reviews} reviews, held out for it")
    tell_written(made.name, place, publish)


def _reviews(file: Path, format: ReviewFormat, topic: str | None) -> Iterable[RatedReview]:
    from stream.formats import ReadReport, read
    from stream.training.sentiment import reviews_of_log, reviews_of_table

    if format is ReviewFormat.TABLE:
        return reviews_of_table(file)
    records = read(
        file,
        "amazon" if format is ReviewFormat.AMAZON else "jsonl",
        ReadReport(),
        topic=topic,
    )
    return reviews_of_log(records)
