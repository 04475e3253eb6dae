"""growth: what an event and a list cost as users, items and partitions become more."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stream.bench.load import Load
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import OnTurn, Values, turns
from stream.bench.sizes import Growth
from stream.bench.stage import Stage
from stream.settings import Settings
from stream.worker import settle_garbage_collection

US = 1e6


@dataclass(frozen=True, slots=True)
class _Point:
    """One size of the shop, by which of the three numbers it is told from the others."""

    grows: str
    users: int
    items: int
    partitions: int

    @property
    def size(self) -> int:
        return int(getattr(self, self.grows))

    @property
    def name(self) -> str:
        return f"{self.size:,} {self.grows}"


def measure(size: Growth, settings: Settings, on_turn: OnTurn) -> Figure:
    """Process the same number of events at every size, in this process, the sizes in turn."""
    return asyncio.run(_measure(size, settings, on_turn))


async def _measure(size: Growth, settings: Settings, on_turn: OnTurn) -> Figure:
    points = {point.name: point for point in _points(size)}
    values, list_values = Values(), Values()
    with tempfile.TemporaryDirectory(prefix="prefstream-bench-") as folder:
        shops: dict[str, tuple[Stage, Load]] = {}
        for done, (name, point) in enumerate(points.items()):
            on_turn(f"building {name}", done, len(points))
            stage, load = await _built(point, settings, Path(folder) / str(done))
            await stage.process(stage.messages(load.acts(size.events)))
            await stage.answer()
            shops[name] = stage, load
        # As a worker does: collections would look at all of this again and again.
        settle_garbage_collection()
        for name, _ in turns(list(points), size.rounds, on_turn):
            stage, load = shops[name]
            values.add(
                name, US * await stage.process(stage.messages(load.acts(size.events))) / size.events
            )
            before = stage.sender.n_sent["recommendations"]
            spent_s = await stage.answer()
            n_lists = stage.sender.n_sent["recommendations"] - before
            list_values.add(name, US * spent_s / max(n_lists, 1))
    found: dict[str, dict[str, float]] = {}
    rows = []
    for name, point in points.items():
        first = next(n for n, p in points.items() if p.grows == point.grows)
        row = [name]
        for what, of_sizes in (("event_us", values), ("list_us", list_values)):
            of_axis = found.setdefault(f"{point.grows}_{what}", {})
            of_axis[str(point.size)] = of_sizes[name].median
            times = number(of_sizes[name].over(of_sizes[first]).median)
            row += [*median_and_spread(of_sizes[name], "µs"), times]
        rows.append(row)
    return Figure(
        "growth",
        found,
        ("size", "an event", "±", "times the first", "a list", "±", "times the first"),
        rows,
        f"The preference stage in one process without a broker; {size.events:,} events a round. "
        f"Else {size.users_else:,} users, {size.items_else:,} items, "
        f"{size.partitions_else} partitions. CPU time; lists are made once the events are "
        "folded, one a user. More users act less often each, and have shorter histories.",
    )


def _points(size: Growth) -> Iterator[_Point]:
    users, items, partitions = size.users_else, size.items_else, size.partitions_else
    yield from (_Point("users", n, items, partitions) for n in size.users)
    yield from (_Point("items", users, n, partitions) for n in size.items)
    yield from (_Point("partitions", users, items, n) for n in size.partitions)


async def _built(point: _Point, settings: Settings, folder: Path) -> tuple[Stage, Load]:
    stage = Stage(settings.model_copy(update={"partitions": point.partitions}), folder)
    load = Load(point.users, point.items)
    await stage.start(load.catalogue(stage.encoder_id, stage.dim))
    await stage.process(stage.messages(load.one_act_each()))
    return stage, load
