"""``prefstream train ranker``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.commands.common import CommandFailed, one_line, settings_of
from stream.commands.logs import File, Format, Items, Topic, epoch_ms, known_topic
from stream.commands.train.options import Out, Until, train


@train.command()
def ranker(
    file: File,
    format: Format,
    out: Out,
    until: Until = None,
    rarity: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="0 = what suits most acts; more = what few take counts for more."
        ),
    ] = 0.4,
    topic: Topic = None,
    items: Items = None,
) -> None:
    """Learn in what order candidates are to be shown, and write the ranker into a folder.

    The log must hold the items. It is played to the stream's own parts: its first acts (all that
    PREFSTREAM_USER_MODEL has learnt from, or three fifths) only fill them; before the others they
    are asked what could be shown. The last third of the questions is kept aside: on it MMR's
    strength is chosen, chances are calibrated, and Recall@10 and NDCG@10 are measured beside those
    of the hybrid score; a ranker that gains nothing is not written. Use it by
    PREFSTREAM_RANKER_MODEL=DIR.
    """
    known_topic(topic)
    settings = settings_of()
    try:
        from models.training.ranker import TooLittle
        from stream.training.ranker import NothingGained, train_into
    except ImportError as error:
        raise CommandFailed(f"{error}: training needs `pip install prefstream[train]`") from None
    from models.weights import ModelError, encoder_id, resolve
    from stream.encoders import open_encoder
    from stream.formats import BadSource, ReadReport, read, within
    from stream.tiers.preference import user_model

    with one_line(BadSource, TooLittle, NothingGained, ModelError, OSError):
        model = resolve(settings.encoder)
        encoder = encoder_id(model)
        made = train_into(
            out,
            within(
                read(file, format.value, ReadReport(), items=items, topic=topic),
                until_ms=epoch_ms(until),
            ),
            settings,
            open_encoder(settings).encode,
            encoder,
            user_model(settings, encoder, model.dim),
            lambda step: typer.echo(step, err=True),
            rarity,
        )
    reached = made.reached
    typer.echo(f"learnt from {made.n_questions} {made.by}, asked about {reached.n_asked} more")
    for name, figures in (("ranker", reached.ranked), ("hybrid", reached.hybrid)):
        typer.echo(f"{name}: recall@10 {figures['recall_at_10']} ndcg@10 {figures['ndcg_at_10']}")
    typer.echo(f"gain in ndcg@10 {reached.gain}; diversity {reached.diversity} did best")
    typer.echo(f"{made.name} written to {out}")
