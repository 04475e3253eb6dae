"""Measurements by name, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.bench.broker import topics_of_this_run
from stream.bench.report import Figure
from stream.bench.rounds import OnTurn
from stream.bench.sizes import ON_KAFKA, Size
from stream.demo.processes import terminated_as_interrupted
from stream.settings import Settings


def run_bench(
    sizes: Mapping[str, Size],
    settings: Settings,
    broker: str | None,
    console: Console,
) -> Iterator[Figure]:
    """Yield the figures that ``sizes`` names, each as soon as it is there.

    ``console`` shows how far it is, where it is a terminal; ``broker`` is needed for those of
    ON_KAFKA. Raises BenchFailed, BrokerAbsent, AccessRefused, ChildFailed, DeliveryFailed,
    ModelError, TopicsNotCreated or KafkaError, and KeyboardInterrupt on Ctrl-C; topics and
    processes are gone in any case.
    """
    topics: AbstractContextManager[Settings] = nullcontext(settings)
    if any(name in ON_KAFKA for name in sizes):
        assert broker, "no broker to measure on"
        topics = topics_of_this_run(settings, broker)
    # Its clients log each thing that they try again: a topic just made may have no leader yet.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with terminated_as_interrupted(), topics as own, _progress(console) as tell:
        for name, size in sizes.items():
            # Each by itself: torch and transformers take seconds to load, and most need neither.
            module: Any = import_module(f"stream.bench.{name}")
            yield module.measure(size, own, tell(name))


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], OnTurn]]:
    """Give what makes an OnTurn that draws a bar under a figure's name."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:

        def tell(name: str) -> OnTurn:
            task = progress.add_task(name, total=1)

            def on_turn(side: str, done: int, total: int) -> None:
                description = f"{name}: {side}" if side else name
                progress.update(task, description=description, completed=done, total=total)

            return on_turn

        yield tell
