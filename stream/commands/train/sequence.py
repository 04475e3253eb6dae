"""``prefstream train sequence``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.commands.common import CommandFailed, one_line, settings_of
from stream.commands.logs import File, Format, Items, Topic, epoch_ms, known_topic
from stream.commands.train.options import Out, Publish, Until, place_of, tell_written, train


@train.command()
def sequence(
    file: File,
    format: Format,
    out: Out,
    publish: Publish = False,
    until: Until = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most; fewer where more do no good.")] = 8,
    seed: Annotated[int, typer.Option(help="The same gives the same model.")] = 0,
    topic: Topic = None,
    items: Items = None,
) -> None:
    """Learn what shoppers take next, and write the model into a folder.

    The log must hold the items, whose texts are encoded by PREFSTREAM_ENCODER. The newest item of
    each shopper is kept aside to choose the epochs and the weight beside the hybrid score; prints
    Recall@10 and NDCG@10 on it after each epoch, with 95 % intervals, beside those of the hybrid
    alone. Then it is learnt anew from everything. Use it by PREFSTREAM_USER_MODEL=DIR.
    """
    known_topic(topic)
    settings = settings_of()
    try:
        from models.training.sequence import Epoch, Recipe, TooLittle
        from stream.training.sequence import train_into
    except ImportError as error:
        raise CommandFailed(f"{error}: training needs `pip install prefstream[train]`") from None
    from models.weights import ModelError, encoder_id, resolve
    from stream.evaluate.vectors import encoded
    from stream.formats import BadSource, ReadReport, read, within

    def tell(epoch: Epoch) -> None:
        typer.echo(
            f"epoch {epoch.number} loss {epoch.loss:.3f} "
            f"recall@10 {epoch.mixed.recall} ndcg@10 {epoch.mixed.ndcg} (weight {epoch.weight}); "
            f"alone {epoch.alone.recall} {epoch.alone.ndcg}; "
            f"hybrid alone {epoch.hybrid.recall} {epoch.hybrid.ndcg}"
        )

    with one_line(BadSource, TooLittle, ModelError, OSError):
        place = place_of(out, publish)
        made = train_into(
            place,
            within(
                read(file, format.value, ReadReport(), items=items, topic=topic),
                until_ms=epoch_ms(until),
            ),
            settings,
            Recipe(epochs=epochs, seed=seed),
            lambda texts: encoded(texts, settings),
            encoder_id(resolve(settings.encoder)),
            tell,
        )
    if not made.learnt.parts.weight:
        typer.echo("no better than the hybrid alone: it gets no weight", err=True)
    typer.echo(
        f"asked about the newest items of {made.learnt.n_asked} shoppers; "
        f"{made.learnt.chosen.number} epochs on everything"
    )
    tell_written(made.name, place, publish)
