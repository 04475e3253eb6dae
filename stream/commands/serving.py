"""``prefstream worker``, ``pseudonymise``, ``broker`` and ``demo``: what stays up."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.common import CommandFailed, broker_errors, one_line, settings_of


class Tier(Enum):
    ENCODE = "encode"
    PREFERENCE = "preference"
    USERS = "users"
    NEIGHBOURS = "neighbours"
    ALL = "all"


def worker(
    tier: Annotated[
        Tier,
        typer.Option(help="What to run: both tiers, one, or a process of `preference` alone."),
    ] = Tier.ALL,
) -> None:
    """Run the workers: events in, recommendations out."""
    # What is wrong with the settings is said once, here, and not by each process.
    settings_of()
    from stream.settings import unknown_variables

    for text in unknown_variables(os.environ):
        typer.echo(f"prefstream: {text}", err=True)
    from stream.worker import run_worker

    raise typer.Exit(run_worker(tier.value))


def pseudonymise() -> None:
    """Copy raw topics into ours, under pseudonyms.

    Reads clickstream, searches, reviews and users behind the prefix of the setting
    pseudonym_raw_prefix, with the keys of pseudonym_key_file. What cannot be read goes to
    dead-letters behind the same prefix.
    """
    settings = settings_of()
    if settings.pseudonym_key_file is None:
        raise CommandFailed("setting pseudonym_key_file: must name a file of keys", 2)
    if settings.pseudonym_raw_prefix == settings.topic_prefix:
        raise CommandFailed(
            f"setting pseudonym_raw_prefix={settings.pseudonym_raw_prefix!r}: "
            "must not be topic_prefix",
            2,
        )
    from stream.health import CannotListen
    from stream.logs import setup_logging
    from stream.pseudonymise import run_until_told
    from stream.pseudonyms import BadKeys, Pseudonymiser
    from stream.topic_admin import BrokerAbsent

    setup_logging(settings.log_level, settings.log_format)
    with one_line(BadKeys, BrokerAbsent, CannotListen), broker_errors(settings):
        run_until_told(settings, Pseudonymiser.read(settings.pseudonym_key_file))


def broker(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Listen here, on loopback.")] = 9092,
    data_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Keep the topics in this folder.")
    ] = Path("prefstream-broker"),
) -> None:
    """Run the embedded broker alone, in the foreground."""
    from stream.broker import BrokerFailed, run_broker

    with one_line(BrokerFailed):
        raise typer.Exit(run_broker(port, data_dir))


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="Let shoppers act for so long.")] = 30,
    rate: Annotated[float, typer.Option(min=0.1, max=5000, help="Acts per second.")] = 20,
    items: Annotated[int, typer.Option(min=16, max=1_000_000, help="Items on sale.")] = 352,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same shop.")] = 7,
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Use this broker, with topics of its own that are deleted in the end.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write what is sent here, to train models on."
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Stay up afterwards: broker, workers, shoppers.")
    ] = False,
) -> None:
    """Run everything here, with a simulated shop, and watch.

    Starts an embedded broker and the workers, sends what a seeded crowd of shoppers does, prints
    what each act leads to as it happens, and the score at the end. Exits 1 when nothing came or
    something was lost. Trained models that the settings name are used, a broker is not touched;
    for speed as it is in earnest name an Apache Kafka with --broker.
    """
    settings = settings_of()
    from stream.broker import BrokerFailed
    from stream.connection import AccessRefused
    from stream.demo.processes import ChildFailed
    from stream.demo.run import run_demo
    from stream.topic_admin import BrokerAbsent, TopicsNotCreated

    expected = (AccessRefused, BrokerFailed, BrokerAbsent, ChildFailed, TopicsNotCreated)
    with one_line(*expected, OSError):
        code = run_demo(
            settings,
            seconds=seconds,
            rate=rate,
            serve=serve,
            seed=seed,
            n_items=items,
            broker=broker,
            log=log,
        )
    raise typer.Exit(code)
