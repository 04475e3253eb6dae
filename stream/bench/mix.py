"""mix: clicks, searches and reviews caught up, against a plain loop that keeps nothing."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from models.weights import encoder_id, resolve
from stream.bench.broker import of_side
from stream.bench.catching_up import CaughtUp, Side
from stream.bench.ingest import COMMIT_S
from stream.bench.load import Load
from stream.bench.plain_loop import Done, Job, Ranges
from stream.bench.processes import (
    encode_worker,
    preference_url,
    preference_worker,
    told_by,
    url,
)
from stream.bench.report import Figure, median_and_spread, number
from stream.bench.rounds import BenchFailed, OnTurn, Sample, Values, turns
from stream.bench.sizes import Mix
from stream.demo.processes import free_ports, why_not_ready
from stream.groups import group_of
from stream.lag import KafkaOffsets
from stream.settings import Settings
from stream.topic_admin import create_topics
from stream.topics import CLICKSTREAM, REVIEWS, SEARCHES

_PLAIN_WITHIN_S = 600.0
_SOURCES = (CLICKSTREAM.name, SEARCHES.name, REVIEWS.name)


def measure(size: Mix, settings: Settings, on_turn: OnTurn) -> Figure:
    """Have an encode and a preference process catch a mix up, and the plain loop read the same."""
    settings = settings.model_copy(update={"commit_interval_s": COMMIT_S})
    return asyncio.run(_measure(size, settings, on_turn))


async def _measure(size: Mix, settings: Settings, on_turn: OnTurn) -> Figure:
    load, per_cpu_s = Load(size.users, size.items), Values()
    caught, plain = list[CaughtUp](), dict[int, list[Done]]()
    own, plain_s = of_side(settings, "mix"), of_side(settings, "plain")
    names = ("ours", *(f"plain {window}" for window in size.windows))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefstream-bench-")))
        on_turn("starting an encode and a preference process", 0, 1)
        await create_topics(plain_s)
        side = await _side(own, load, folder, stack)
        offsets = KafkaOffsets(own)
        stack.push_async_callback(offsets.stop)
        await offsets.start()
        on_turn("warming up", 0, 1)
        await side.catch_up(load.mix(size.events))
        stored: dict[str, Ranges] = {}
        for name, _ in turns(names, size.rounds, on_turn):
            if name == "ours":
                before = await _ends(offsets, own)
                one = await side.catch_up(load.mix(size.events))
                after = await _ends(offsets, own)
                stored = {
                    topic: {n: (before[topic, n], after[topic, n]) for n in range(own.partitions)}
                    for topic in _SOURCES
                }
                caught.append(one)
                per_cpu_s.add(name, one.n_events / one.whole_cpu_s)
                continue
            job = Job(stored, int(name.split()[1]), plain_s.topic_prefix)
            done = await asyncio.to_thread(_plain, own, job, size.events)
            plain.setdefault(job.window, []).append(done)
            per_cpu_s.add(name, done.n_events / done.cpu_s)
    return _figure(size, settings, per_cpu_s, caught, plain)


async def _side(settings: Settings, load: Load, folder: Path, stack: AsyncExitStack) -> Side:
    """Return a side with both processes that has read its catalogue."""
    side = await stack.enter_async_context(Side(settings, group_of(settings, "preference")))
    model = resolve(settings.encoder)
    await side.send(load.catalogue(encoder_id(model), model.dim))
    encode, preference = free_ports(1), free_ports(2)
    side.children = [
        stack.enter_context(encode_worker(settings, folder, "encode", encode)),
        stack.enter_context(preference_worker(settings, folder, "preference", preference)),
    ]
    await side.ready(
        lambda: (
            not why_not_ready(url(encode, "ready"))
            and not why_not_ready(preference_url(preference, "ready"))
        )
    )
    await side.at_rest()
    return side


async def _ends(offsets: KafkaOffsets, settings: Settings) -> dict[tuple[str, int], int]:
    places = [(topic, n) for topic in _SOURCES for n in range(settings.partitions)]
    return {place: end for place, (_, end) in (await offsets.bounds(places)).items()}


def _plain(settings: Settings, job: Job, n_events: int) -> Done:
    """Have the plain loop read what is stored; raises BenchFailed."""
    told = told_by("stream.bench.plain_loop", job, settings, _PLAIN_WITHIN_S, "the plain loop")
    done = msgspec.json.decode(told, type=Done)
    if done.n_events != n_events:
        raise BenchFailed(f"the plain loop read {done.n_events} events of {n_events}")
    return done


def _figure(
    size: Mix,
    settings: Settings,
    per_cpu_s: Values,
    caught: list[CaughtUp],
    plain: dict[int, list[Done]],
) -> Figure:
    ours = per_cpu_s["ours"]
    n_lists = sum(one.n_lists for one in caught) / len(caught)
    sides: list[tuple[str, Sample, float]] = [("prefstream, encode and preference", ours, n_lists)]
    ratios: dict[int, float] = {}
    for window, done in plain.items():
        bare = per_cpu_s[f"plain {window}"]
        ratios[window] = ours.over(bare).median
        lists = sum(one.n_lists for one in done) / len(done)
        sides.append((f"plain loop, windows of {window:,}", bare, lists))
    return Figure(
        "mix",
        {
            "ours_eps": ours.median,
            "plain_eps": {str(w): per_cpu_s[f"plain {w}"].median for w in plain},
            "ratio_vs_plain": {str(w): ratio for w, ratio in ratios.items()},
        },
        ("side", "events per CPU second", "±", "times ours", "lists"),
        [
            (name, *median_and_spread(side), number(side.over(ours).median), number(lists))
            for name, side, lists in sides
        ],
        f"Backlogs of {size.events:,} events, 90 % acts, 8 % searches (18 % of them new), 2 % "
        f"reviews, by {size.users:,} users on {size.items:,} items, {settings.partitions} "
        "partitions; until every list is made. The plain loop keeps its state in memory, knows no "
        "repeats, finds by content alone, gives no reasons and reads no review.",
    )
