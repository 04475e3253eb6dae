"""workers: two preference workers against one on the same backlog, each on a core of its own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from models.weights import encoder_id, resolve
from stream.bench.broker import of_side
from stream.bench.catching_up import Side
from stream.bench.load import Load
from stream.bench.processes import pin, preference_url, preference_worker
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import BenchFailed, OnTurn, Values, turns
from stream.bench.sizes import Backlog
from stream.demo.processes import free_ports, gauge, why_not_ready
from stream.groups import group_of
from stream.settings import Settings

#: The clock stops with the last commit, so commits must not be far apart.
_COMMIT_S = 0.1
_COUNTS = {"one": 1, "two": 2}


def measure(size: Backlog, settings: Settings, on_turn: OnTurn) -> Figure:
    """Have one worker and two catch up the same backlogs by turns, in topics of their own."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchFailed("workers: two cores are needed, one for each worker")
    if settings.partitions < 2:
        raise BenchFailed("workers: two partitions are needed, one for each worker")
    settings = settings.model_copy(update={"commit_interval_s": _COMMIT_S})
    return asyncio.run(_measure(size, settings, cores, on_turn))


async def _measure(size: Backlog, settings: Settings, cores: list[int], on_turn: OnTurn) -> Figure:
    load, per_s, per_cpu_s = Load(size.users, size.items), Values(), Values()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefstream-bench-")))
        on_turn("starting one worker and two", 0, 1)
        sides = {
            name: await _side(of_side(settings, name), n, load, folder, cores, stack)
            for name, n in _COUNTS.items()
        }
        on_turn("warming up", 0, 1)
        acts = load.acts(size.events)
        for side in sides.values():
            await side.catch_up(acts)
        for name, _ in turns(list(sides), size.rounds, on_turn):
            if name == "one":
                acts = load.acts(size.events)
            one = await sides[name].catch_up(acts)
            per_s.add(name, one.n_events / one.wall_s)
            per_cpu_s.add(name, one.n_events / one.cpu_s)
    ratios = {name: per_s[name].over(per_s["one"]) for name in sides}
    return Figure(
        "workers",
        {"two_over_one": ratios["two"].median},
        ("workers", "events/s", "±", "times one", "events per CPU second"),
        [
            (
                name,
                *median_and_spread(per_s[name]),
                number(ratios[name].median),
                number(per_cpu_s[name].median),
            )
            for name in sides
        ],
        f"Backlogs of {size.events:,} acts by {size.users:,} users on {size.items:,} items, "
        f"{settings.partitions} partitions; from the first fetch to the last commit on the clock, "
        f"each worker pinned to a core. A broker on the same {len(cores)} cores takes its part: "
        "one worker leaves it a core, two do not.",
    )


async def _side(
    settings: Settings,
    n_workers: int,
    load: Load,
    folder: Path,
    cores: list[int],
    stack: AsyncExitStack,
) -> Side:
    side = await stack.enter_async_context(Side(settings, group_of(settings, "preference")))
    model = resolve(settings.encoder)
    await side.send(load.catalogue(encoder_id(model), model.dim))
    first = free_ports(2 * n_workers)
    ports = [first + 2 * number for number in range(n_workers)]
    for number_, port in enumerate(ports):
        name = f"{n_workers}-{number_}"
        side.children.append(stack.enter_context(preference_worker(settings, folder, name, port)))

    def each_has_its_share() -> bool:
        return not any(why_not_ready(preference_url(port, "ready")) for port in ports) and all(
            gauge(preference_url(port, "metrics"), "prefstream_assigned_partitions") > 0
            for port in ports
        )

    await side.ready(each_has_its_share)
    for child, core in zip(side.children, cores, strict=False):
        pin(child.pid, core)
    return side
