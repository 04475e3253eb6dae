"""ingest: acts per CPU second of a worker, against a stock Faust app and the bare client."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from models.weights import encoder_id, resolve
from stream.bench.broker import of_side
from stream.bench.catching_up import CaughtUp, Side, Stored
from stream.bench.faust_counter import group_of as faust_group
from stream.bench.floor import Read
from stream.bench.load import Load
from stream.bench.processes import (
    preference_url,
    preference_worker,
    stock_faust,
    told_by,
)
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import BenchFailed, OnTurn, Sample, Values, turns
from stream.bench.sizes import Backlog
from stream.delivery import Output
from stream.demo.processes import free_ports, why_not_ready
from stream.groups import group_of
from stream.settings import Settings

_FLOOR_WITHIN_S = 120.0
#: The last commit ends what is counted: a worker has other things to do while it is not due.
COMMIT_S = 0.1


def measure(size: Backlog, settings: Settings, on_turn: OnTurn) -> Figure:
    """Have a worker and a Faust app catch up the same backlogs by turns, in topics of their own."""
    settings = settings.model_copy(update={"commit_interval_s": COMMIT_S})
    return asyncio.run(_measure(size, settings, on_turn))


async def _measure(size: Backlog, settings: Settings, on_turn: OnTurn) -> Figure:
    load = Load(size.users, size.items)
    per_cpu_s, per_wall_s, caught = Values(), Values(), list[CaughtUp]()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefstream-bench-")))
        on_turn("starting a worker and a Faust app", 0, 1)
        sides = {
            "ours": await ours(of_side(settings, "ours"), load, folder, stack),
            "faust": await _faust(of_side(settings, "faust"), folder, stack),
        }
        on_turn("warming up", 0, 1)
        await _warm_up(sides, load.acts(size.events))
        acts: Sequence[Output] = []
        for name, _ in turns(("ours", "faust", "floor"), size.rounds, on_turn):
            if name == "floor":
                read = await asyncio.to_thread(floor, sides["ours"].settings, caught[-1].stored)
                per_cpu_s.add(name, read.n_events / read.cpu_s)
                continue
            if name == "ours":
                acts = load.acts(size.events)
            one = await sides[name].catch_up(acts)
            per_cpu_s.add(name, one.n_events / one.cpu_s)
            per_wall_s.add(name, one.n_events / one.wall_s)
            if name == "ours":
                caught.append(one)
    n_bytes = sum(len(act.value or b"") for act in acts) / len(acts)
    return _figure(size, settings, per_cpu_s, per_wall_s, caught, n_bytes)


async def ours(settings: Settings, load: Load, folder: Path, stack: AsyncExitStack) -> Side:
    """Return a side with a preference worker that has read its catalogue."""
    side = await stack.enter_async_context(Side(settings, group_of(settings, "preference")))
    model = resolve(settings.encoder)
    await side.send(load.catalogue(encoder_id(model), model.dim))
    port = free_ports(2)
    side.children = [stack.enter_context(preference_worker(settings, folder, "ours", port))]
    await side.ready(lambda: not why_not_ready(preference_url(port, "ready")))
    return side


async def _faust(settings: Settings, folder: Path, stack: AsyncExitStack) -> Side:
    side = await stack.enter_async_context(Side(settings, faust_group(settings)))
    side.children = [stack.enter_context(stock_faust(settings, folder))]
    return side


async def _warm_up(sides: dict[str, Side], acts: Sequence[Output]) -> None:
    # A process that has not begun to listen would be stopped in its start: no matter, it is
    # what it does from its first backlog on that counts.
    for side in sides.values():
        await side.catch_up(acts)


def floor(settings: Settings, stored: Stored) -> Read:
    """Have the bare client read and decode what is stored; raises BenchFailed."""
    told = told_by("stream.bench.floor", stored, settings, _FLOOR_WITHIN_S, "the bare client")
    read = msgspec.json.decode(told, type=Read)
    n_stored = sum(end - first for first, end in stored.values())
    if read.n_events != n_stored:
        raise BenchFailed(f"the bare client read {read.n_events} acts of {n_stored}")
    return read


def _figure(
    size: Backlog,
    settings: Settings,
    per_cpu_s: Values,
    per_wall_s: Values,
    caught: Sequence[CaughtUp],
    n_bytes: float,
) -> Figure:
    ours, faust, floor = (per_cpu_s[side] for side in ("ours", "faust", "floor"))
    whole = Sample(tuple(one.n_events / one.whole_cpu_s for one in caught))
    lists = sum(one.n_lists for one in caught) / len(caught)
    ratio, share = ours.over(faust), ours.over(floor)
    rows = [
        _row("prefstream, preference worker", ours, per_wall_s["ours"], ratio),
        _row("  with all of its lists", whole, None, whole.over(faust)),
        _row("Faust, one table counter", faust, per_wall_s["faust"], faust.over(faust)),
        _row("aiokafka getmany + msgspec decode", floor, None, floor.over(faust)),
    ]
    return Figure(
        "ingest",
        {
            "ours_eps": ours.median,
            "ours_eps_with_lists": whole.median,
            "faust_eps": faust.median,
            "floor_eps": floor.median,
            "ratio_vs_faust": ratio.median,
            "share_of_floor": share.median,
        },
        ("side", "events per CPU second", "±", "times Faust", "events/s on the clock"),
        rows,
        f"Backlogs of {size.events:,} acts of {n_bytes:.0f} bytes by {size.users:,} users on "
        f"{size.items:,} items, {settings.partitions} partitions, store {settings.store}, one "
        "process each. CPU seconds are the process's own, user and system; those of the broker "
        "and of the neighbours process, which may lag, are left out. The clock stops with the "
        f"last commit. Ours makes {lists:,.0f} lists of a backlog, most of them then, and reaches "
        f"{share.median:.1%} of the bare client.",
    )


def _row(side: str, per_cpu_s: Sample, per_wall_s: Sample | None, ratio: Sample) -> Sequence[str]:
    wall = "" if per_wall_s is None else number(per_wall_s.median)
    return (side, *median_and_spread(per_cpu_s), number(ratio.median), wall)
