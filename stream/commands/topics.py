"""``prefstream topics create`` and ``check``."""

from __future__ import annotations

import asyncio

import typer

from stream.commands.common import broker_errors, one_line, settings_of

topics = typer.Typer(
    help="The topics of the program, with their settings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@topics.command()
def create() -> None:
    """Create the topics that are missing."""
    from stream.topic_admin import TopicsNotCreated, create_topics

    settings = settings_of()
    with broker_errors(settings), one_line(TopicsNotCreated):
        created = asyncio.run(create_topics(settings))
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo("all topics are there")


@topics.command()
def check() -> None:
    """Check the topics; exit 1 naming each difference."""
    from stream.topic_admin import check_topics

    settings = settings_of()
    with broker_errors(settings):
        problems = asyncio.run(check_topics(settings))
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("all topics are as they must be")
