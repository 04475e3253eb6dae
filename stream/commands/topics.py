"""``prefstream topics create``, ``check``, ``list`` and ``acls``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from stream.acls import ROLES, Format, Role
from stream.commands.common import CommandFailed, broker_errors, one_line, settings_of

Cluster = Annotated[str, typer.Option(help="Of --format strimzi: the name of the Kafka resource.")]

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


@topics.command("list")
def list_topics(
    form: Annotated[
        Literal["lines", "commands", "strimzi"],
        typer.Option(
            "--format", help="To read, as lines for kafka-topics.sh, or as Strimzi's KafkaTopics."
        ),
    ] = "lines",
    cluster: Cluster = "kafka",
) -> None:
    """Print every topic as it must be; needs no broker.

    Names, partitions and replicas are those of the settings.
    """
    from stream.topic_forms import to_commands, to_lines, to_strimzi

    settings = settings_of()
    if form == "strimzi":
        typer.echo(to_strimzi(settings, cluster))
        return
    for line in to_commands(settings) if form == "commands" else to_lines(settings):
        typer.echo(line)


@topics.command()
def acls(
    role: Annotated[Role, typer.Argument(metavar="ROLE", help=f"Of {', '.join(ROLES)}.")],
    user: Annotated[str, typer.Option(help="The user's name on the brokers.")],
    group: Annotated[
        str, typer.Option(help="Also to read with this group: who takes our outputs has one.")
    ] = "",
    form: Annotated[
        Format,
        typer.Option("--format", help="Lines for kafka-acls.sh, or a Strimzi KafkaUser."),
    ] = "commands",
    cluster: Cluster = "kafka",
) -> None:
    """Print the least rights that a role needs.

    Names are those of the settings: topic prefix, group prefix, broker.
    """
    from stream.acls import rules_of, to_commands, to_strimzi
    from stream.pseudonyms import BadKeys

    settings = settings_of()
    if role == "edge" and settings.pseudonym_key_file is None:
        raise CommandFailed("setting pseudonym_key_file: names the key that a group is named by", 2)
    with one_line(BadKeys):
        rules = rules_of(role, settings, group)
    if form == "strimzi":
        typer.echo(to_strimzi(rules, user, cluster))
        return
    for line in to_commands(rules, user, settings.broker):
        typer.echo(line)
