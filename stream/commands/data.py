"""``prefstream schema`` and ``dead-letters``: what the messages are, and those given up on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.common import CommandFailed, broker_errors, settings_of

if TYPE_CHECKING:
    from stream.redrive import DeadLetter, RedriveReport, Selection
    from stream.settings import Settings

dead_letters = typer.Typer(
    help="Messages that were given up on.", no_args_is_help=True, rich_markup_mode=None
)

Topic = Annotated[str | None, typer.Option(help="Only those that came to this topic.")]
Reason = Annotated[str | None, typer.Option(help="Only this error class, or part of the message.")]
Stage = Annotated[str | None, typer.Option(help="Only those given up on at this stage.")]
Partition = Annotated[int | None, typer.Option(min=0, help="Only this partition of dead-letters.")]
First = Annotated[int | None, typer.Option(min=0, help="Only from this offset on.")]
Last = Annotated[int | None, typer.Option(min=0, help="Only up to this offset.")]


def schema(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic of the public ones.")],
) -> None:
    """Print the JSON Schema (2020-12) of a topic's values."""
    from stream.schemas import UnknownTopic, schema_of

    try:
        found = schema_of(topic)
    except UnknownTopic as error:
        raise CommandFailed(str(error), 2) from None
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


@dead_letters.command("list")
def list_letters(
    topic: Topic = None,
    reason: Reason = None,
    stage: Stage = None,
    partition: Partition = None,
    first: First = None,
    last: Last = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    values: Annotated[
        bool, typer.Option("--values", help="Print the values too: they may hold personal data.")
    ] = False,
) -> None:
    """List dead letters, oldest first, and why they are there."""
    from stream.redrive import list_dead_letters

    settings, wanted = settings_of(), _selection(topic, reason, stage, partition, first, last)
    with broker_errors(settings):
        letters = asyncio.run(list_dead_letters(settings, wanted, limit))
    for letter in letters:
        typer.echo(_line(letter, values))
    typer.echo(f"{len(letters)} dead letters", err=True)


@dead_letters.command()
def redrive(
    topic: Topic = None,
    reason: Reason = None,
    stage: Stage = None,
    partition: Partition = None,
    first: First = None,
    last: Last = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, send nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were redriven before.")
    ] = False,
) -> None:
    """Copy dead letters back to where they came from.

    Byte for byte, and each only once."""
    settings, wanted = settings_of(), _selection(topic, reason, stage, partition, first, last)
    with broker_errors(settings):
        report = asyncio.run(_redrive(settings, wanted, limit, dry_run, again))
    verb = "would be sent" if report.dry_run else "sent"
    for name, n in sorted(report.sent.items()):
        typer.echo(f"{n} {verb} to {name}")
    for obstacle, n in sorted(report.skipped.items()):
        typer.echo(f"{n} left alone: {obstacle}")
    typer.echo(f"{report.sent.total()} {verb}")


async def _redrive(
    settings: Settings, wanted: Selection, limit: int | None, dry_run: bool, again: bool
) -> RedriveReport:
    from stream.kafka_client import KafkaSender
    from stream.redrive import redrive

    sender = KafkaSender(settings)
    await sender.start()
    try:
        return await redrive(settings, sender, wanted, limit=limit, dry_run=dry_run, again=again)
    finally:
        await sender.stop()


def _selection(
    topic: str | None,
    reason: str | None,
    stage: str | None,
    partition: int | None,
    first: int | None,
    last: int | None,
) -> Selection:
    from stream.redrive import Selection

    return Selection(
        topic=topic, reason=reason, stage=stage, partition=partition, first=first, last=last
    )


def _line(letter: DeadLetter, values: bool) -> str:
    from stream import dead_letters as dlq

    again = "  (redriven)" if letter.redriven else ""
    said = f"{letter.fact(dlq.ERROR_CLASS)}: {letter.fact(dlq.ERROR_MESSAGE)}"
    value = (letter.value or b"").decode(errors="replace") if values else ""
    return (
        f"{letter.partition}/{letter.offset}  from {letter.source}  at {letter.fact(dlq.STAGE)}  "
        f"{said}{again}" + (f"\n    {value}" if values else "")
    )
