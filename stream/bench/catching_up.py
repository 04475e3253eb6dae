"""A consumer group that catches up a stored backlog, and what it spends on that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream.bench.processes import cpu_s, standing_still
from stream.bench.rounds import BenchFailed
from stream.delivery import Output
from stream.demo.live import until
from stream.demo.processes import Child
from stream.kafka_client import KafkaSender
from stream.lag import KafkaOffsets
from stream.settings import Settings
from stream.topic_admin import create_topics
from stream.topics import CLICKSTREAM, DEAD_LETTERS, RECOMMENDATIONS

#: Messages sent at once.
_SENT_AT_ONCE = 5_000
_LOOK_EVERY_S, _DRAINED_WITHIN_S, _RESTING_WITHIN_S = 0.05, 600.0, 180.0
#: A process that takes less of a core than this has done what it does after its start.
_RESTING_SHARE = 0.2

#: First and next offset by partition.
Stored = dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """One backlog: where it lay, and what its processes spent until all of it was committed.

    ``n_lists`` were made of it, most of them afterwards; ``whole_cpu_s`` goes on until then.
    """

    stored: Stored
    n_events: int
    n_lists: int
    cpu_s: float
    wall_s: float
    whole_cpu_s: float


class Side:
    """Topics of one side and the processes of one group that reads ``clickstream``.

    An async context manager: it makes the topics. Start the processes and put them into
    ``children`` once the catalogue is sent.
    """

    def __init__(self, settings: Settings, group: str) -> None:
        self.settings, self.children = settings, list[Child]()
        self._group = group
        self._sender, self._offsets = KafkaSender(settings), KafkaOffsets(settings)
        partitions = range(settings.partitions)
        self._clicks = [(CLICKSTREAM.name, number) for number in partitions]
        self._lists = [(RECOMMENDATIONS.name, number) for number in partitions]
        self._dead = [(DEAD_LETTERS.name, number) for number in partitions]

    async def __aenter__(self) -> Side:
        await create_topics(self.settings)
        await self._sender.start()
        await self._offsets.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._offsets.stop()
        await self._sender.stop()

    async def send(self, outputs: Sequence[Output]) -> None:
        """Return once the broker has every message."""
        for start in range(0, len(outputs), _SENT_AT_ONCE):
            await self._sender.send(outputs[start : start + _SENT_AT_ONCE])

    async def catch_up(self, acts: Sequence[Output]) -> CaughtUp:
        """Store a backlog while the processes stand still, then let them go at it.

        The clock stops with the last commit; what is left to do then is waited for. Raises
        BenchFailed when an act was given up on.
        """
        before, lists_before = await self._ends(self._clicks), await self._ends(self._lists)
        with standing_still([child.pid for child in self.children]):
            await self.send(acts)
            after = await self._ends(self._clicks)
            cpu_before_s = self._cpu_s()
        started_s = time.monotonic()
        while not await self._is_committed(after):
            self._check(started_s + _DRAINED_WITHIN_S, "has not caught up")
            await asyncio.sleep(_LOOK_EVERY_S)
        wall_s, spent_s = time.monotonic() - started_s, self._cpu_s() - cpu_before_s
        if any((await self._ends(self._dead)).values()):
            raise BenchFailed(f"{self._names()} could not process what it was given")
        await self.at_rest()
        whole_s = self._cpu_s() - cpu_before_s
        n_lists = sum((await self._ends(self._lists)).values()) - sum(lists_before.values())
        stored = {number: (before[number], after[number]) for number in after}
        return CaughtUp(stored, len(acts), n_lists, spent_s, wall_s, whole_s)

    async def ready(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the processes; raises ChildFailed when one ends."""

        def holds_and_alive() -> bool:
            for child in self.children:
                child.check()
            return holds()

        if not await until(holds_and_alive, _RESTING_WITHIN_S, every_s=0.25):
            raise BenchFailed(f"{self._names()} not ready after {_RESTING_WITHIN_S:.0f} s")

    async def at_rest(self) -> None:
        """Wait until the processes rest: an index may still be built in the background."""
        deadline_s = time.monotonic() + _RESTING_WITHIN_S
        spent_s = float("inf")
        while spent_s > _RESTING_SHARE * len(self.children):
            self._check(deadline_s, "does not come to rest")
            before_s = self._cpu_s()
            await asyncio.sleep(1)
            spent_s = self._cpu_s() - before_s

    def _check(self, deadline_s: float, what: str) -> None:
        for child in self.children:
            child.check()
        if time.monotonic() > deadline_s:
            raise BenchFailed(f"{self._names()} {what}")

    def _names(self) -> str:
        return ", ".join(child.name for child in self.children)

    def _cpu_s(self) -> float:
        return sum(cpu_s(child.pid) for child in self.children)

    async def _ends(self, places: list[tuple[str, int]]) -> dict[int, int]:
        bounds = await self._offsets.bounds(places)
        return {number: end for (_, number), (_, end) in bounds.items()}

    async def _is_committed(self, ends: dict[int, int]) -> bool:
        committed = await self._offsets.committed(self._group, self._clicks)
        return all(committed.get((CLICKSTREAM.name, n), 0) >= end for n, end in ends.items())
