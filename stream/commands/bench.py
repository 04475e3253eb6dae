"""``prefstream bench``: the speed tables of the README."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.bench.sizes import FULL, ON_KAFKA, QUICK, Size
from stream.commands.common import CommandFailed, one_line, settings_of


def _sizes(name: str) -> str:
    """Return how large a measurement is unless it is told otherwise, for its help."""
    size = FULL[name]
    parts = [f"{each.name} {getattr(size, each.name)}" for each in fields(size)]
    return f"Unless told otherwise: {', '.join(parts)}."


bench = typer.Typer(
    help="Measure speeds, each against its other side in the same run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Broker = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="An Apache Kafka; the topics made there are deleted in the end.",
    ),
]
KafkaVersion = Annotated[
    str | None, typer.Option(help="The broker's version, for the record: it does not tell.")
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", dir_okay=False, help="Write the figures there too."),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Small and one round: shows that it runs, no more.")
]
Rounds = Annotated[int | None, typer.Option(min=1, help="Turns of each side.")]
Users = Annotated[int | None, typer.Option(min=2, help="Users who act.")]
Items = Annotated[int | None, typer.Option(min=1, help="Items of the catalogue.")]
Events = Annotated[int | None, typer.Option(min=100, help="Acts of a round.")]


@bench.command(epilog=_sizes("ingest"))
def ingest(
    broker: Broker = None,
    kafka_version: KafkaVersion = None,
    json: Json = None,
    quick: Quick = False,
    rounds: Rounds = None,
    users: Users = None,
    items: Items = None,
    events: Events = None,
) -> None:
    """Acts per CPU second: a worker, a Faust app, the bare client.

    A preference worker and a stock Faust app with one table counter catch up the same stored
    backlogs by turns; then aiokafka alone reads and decodes it.
    """
    given = {"rounds": rounds, "users": users, "items": items, "events": events}
    _run("ingest", quick, json, broker, kafka_version, **given)


@bench.command("catch-up", epilog=_sizes("catch_up"))
def catch_up(
    broker: Broker = None,
    kafka_version: KafkaVersion = None,
    json: Json = None,
    quick: Quick = False,
    rounds: Rounds = None,
    users: Users = None,
    items: Items = None,
    events: Events = None,
) -> None:
    """A long backlog of many users, every list made, against the bare client."""
    given = {"rounds": rounds, "users": users, "items": items, "events": events}
    _run("catch_up", quick, json, broker, kafka_version, **given)


@bench.command(epilog=_sizes("mix"))
def mix(
    broker: Broker = None,
    kafka_version: KafkaVersion = None,
    json: Json = None,
    quick: Quick = False,
    rounds: Rounds = None,
    users: Users = None,
    items: Items = None,
    events: Events = None,
) -> None:
    """Acts, searches, reviews against a plain loop."""
    given = {"rounds": rounds, "users": users, "items": items, "events": events}
    _run("mix", quick, json, broker, kafka_version, **given)


@bench.command(epilog=_sizes("latency"))
def latency(
    broker: Broker = None,
    kafka_version: KafkaVersion = None,
    json: Json = None,
    quick: Quick = False,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Acts per second.")] = None,
    users: Users = None,
    items: Items = None,
    seconds: Annotated[float | None, typer.Option(min=2, help="Act for so long.")] = None,
    searches: Annotated[
        float | None, typer.Option(min=0, help="Searches per second among them, at most.")
    ] = None,
) -> None:
    """Act sent to list received, outside the workers."""
    given = {
        "rate": rate,
        "users": users,
        "items": items,
        "seconds": seconds,
        "searches": searches,
    }
    _run("latency", quick, json, broker, kafka_version, **given)


@bench.command(epilog=_sizes("retrieval"))
def retrieval(
    json: Json = None,
    quick: Quick = False,
    rounds: Rounds = None,
    n: Annotated[int | None, typer.Option(min=1_000, help="Vectors in the index.")] = None,
    dim: Annotated[int | None, typer.Option(min=8, help="Dimensions, of those made up.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of both.")] = None,
) -> None:
    """The catalogue's index against FAISS' exact one."""
    _run("retrieval", quick, json, rounds=rounds, n=n, dim=dim, threads=threads)


@bench.command(epilog=_sizes("encoder"))
def encoder(json: Json = None, quick: Quick = False, rounds: Rounds = None) -> None:
    """The encoder against transformers, eager, in float32."""
    _run("encoder", quick, json, rounds=rounds)


@bench.command(epilog=_sizes("state"))
def state(
    json: Json = None,
    quick: Quick = False,
    users: Users = None,
    acts: Annotated[int | None, typer.Option(min=100, help="What they do in sixty days.")] = None,
) -> None:
    """Bytes of a user's row, in store and changelog."""
    _run("state", quick, json, users=users, acts=acts)


@bench.command(epilog=_sizes("growth"))
def growth(
    json: Json = None,
    quick: Quick = False,
    rounds: Rounds = None,
    users: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated.")] = None,
    items: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated.")] = None,
    partitions: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated.")] = None,
    events: Events = None,
) -> None:
    """CPU per event as users, items, partitions grow."""
    sizes = {"users": users, "items": items, "partitions": partitions}
    given: dict[str, Any] = {name: tuple(n) for name, n in sizes.items() if n}
    _run("growth", quick, json, rounds=rounds, events=events, **given)


@bench.command(epilog=_sizes("workers"))
def workers(
    broker: Broker = None,
    kafka_version: KafkaVersion = None,
    json: Json = None,
    quick: Quick = False,
    rounds: Rounds = None,
    users: Users = None,
    items: Items = None,
    events: Events = None,
) -> None:
    """Two preference workers against one, pinned to cores."""
    given = {"rounds": rounds, "users": users, "items": items, "events": events}
    _run("workers", quick, json, broker, kafka_version, **given)


@bench.command("all")
def all_figures(
    broker: Broker = None,
    kafka_version: KafkaVersion = None,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """All of them, one after the other."""
    _run("all", quick, json, broker, kafka_version)


def _run(
    name: str,
    quick: bool,
    json: Path | None,
    broker: str | None = None,
    kafka_version: str | None = None,
    **given: Any,
) -> None:
    """Measure one figure, at a size of which some parts were given, or all figures."""
    sizes = QUICK if quick else FULL
    if name != "all":
        parts = {part: value for part, value in given.items() if value is not None}
        sizes = {name: replace(sizes[name], **parts)}
    _require(sizes, json, broker)
    settings = settings_of()
    # As in a worker that searches and folds; the library reads it when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from aiokafka.errors import KafkaError
    from rich.console import Console

    from models.weights import ModelError
    from stream.bench.machine import NOT_TOLD, NOT_USED, Setup
    from stream.bench.report import Figure, print_figure, print_setup, write_json
    from stream.bench.rounds import BenchFailed
    from stream.bench.run import run_bench
    from stream.connection import AccessRefused
    from stream.delivery import DeliveryFailed
    from stream.demo.processes import ChildFailed
    from stream.topic_admin import BrokerAbsent, TopicsNotCreated

    console, figures = Console(), list[Figure]()
    # What is drawn must not mix with tables that go to a file.
    progress = console if console.is_terminal else Console(stderr=True)
    of_broker = (AccessRefused, BrokerAbsent, DeliveryFailed, KafkaError, TopicsNotCreated)
    with one_line(BenchFailed, ChildFailed, ModelError, *of_broker):
        for figure in run_bench(sizes, settings, broker, progress):
            print_figure(console, figure)
            figures.append(figure)
    setup = Setup.here(sys.argv[1:], kafka_version or (NOT_TOLD if broker else NOT_USED))
    print_setup(console, setup)
    if json is not None:
        with one_line(OSError):
            write_json(json, figures, setup)


def _require(sizes: Mapping[str, Size], json: Path | None, broker: str | None) -> None:
    """Raise CommandFailed for what would only show after minutes, or never."""
    if not sys.platform.startswith("linux"):
        raise CommandFailed("bench reads CPU times from /proc, which only Linux has")
    if json is not None and not json.parent.is_dir():
        raise CommandFailed(f"there is no folder {json.parent} for '--json'", 2)
    on_kafka = [name for name in sizes if name in ON_KAFKA]
    if on_kafka and not broker:
        raise CommandFailed(
            f"{', '.join(on_kafka)} cannot be measured without an Apache Kafka: name it with "
            "'--broker' HOST:PORT (the embedded one answers empty fetches at once, so no time "
            "can be judged on it)",
            2,
        )
