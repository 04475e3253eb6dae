"""catch_up: a long backlog of many users, every user's list made of it, against the bare client."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from stream.bench.broker import of_side
from stream.bench.catching_up import CaughtUp
from stream.bench.ingest import COMMIT_S, floor, ours
from stream.bench.load import Load
from stream.bench.processes import imports_mib, resident_mib
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import OnTurn, Sample, Values
from stream.bench.sizes import Backlog
from stream.settings import Settings


def measure(size: Backlog, settings: Settings, on_turn: OnTurn) -> Figure:
    """Have a worker that knows nobody yet catch up a backlog, and the bare client read it."""
    settings = settings.model_copy(update={"commit_interval_s": COMMIT_S})
    return asyncio.run(_measure(size, settings, on_turn))


async def _measure(size: Backlog, settings: Settings, on_turn: OnTurn) -> Figure:
    load = Load(size.users, size.items)
    caught, read_per_s = list[CaughtUp](), Values()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefstream-bench-")))
        on_turn("starting a worker", 0, 2 * size.rounds)
        side = await ours(of_side(settings, "catch-up"), load, folder, stack)
        for turn in range(size.rounds):
            on_turn("storing acts, and catching up", 2 * turn, 2 * size.rounds)
            caught.append(await side.catch_up(load.acts(size.events)))
            on_turn("reading with the bare client", 2 * turn + 1, 2 * size.rounds)
            read = await asyncio.to_thread(floor, side.settings, caught[-1].stored)
            read_per_s.add("floor", read.n_events / read.cpu_s)
        held_mib = resident_mib(side.children[0].pid)
    on_turn("", 2 * size.rounds, 2 * size.rounds)
    return _figure(size, settings, caught, read_per_s["floor"], held_mib)


def _figure(
    size: Backlog,
    settings: Settings,
    caught: Sequence[CaughtUp],
    bare: Sample,
    held_mib: float,
) -> Figure:
    read = Sample(tuple(one.n_events / one.cpu_s for one in caught))
    whole = Sample(tuple(one.n_events / one.whole_cpu_s for one in caught))
    n_lists = sum(one.n_lists for one in caught) / len(caught)
    bare_mib = imports_mib()
    return Figure(
        "catch_up",
        {
            "events": size.events,
            "users": size.users,
            "ours_eps": whole.median,
            "read_eps": read.median,
            "lists": n_lists,
            "share_of_floor": whole.over(bare).median,
            "memory_mib": held_mib,
            "imports_mib": bare_mib,
        },
        ("what", "events per CPU second", "±"),
        [
            ("caught up, and every list made", *median_and_spread(whole)),
            ("read and stored alone", *median_and_spread(read)),
            ("aiokafka getmany + msgspec decode", *median_and_spread(bare)),
        ],
        f"{size.events:,} acts by {size.users:,} users on {size.items:,} items, "
        f"{settings.partitions} partitions, store {settings.store}, one preference worker; "
        f"{number(n_lists)} lists, one a user for all that waited. CPU seconds are the "
        f"worker's own, user and system. In the end it holds {number(held_mib)} MiB, of which "
        f"{number(bare_mib)} are its imports.",
    )
