"""What the lag probe makes of the offsets a broker reports."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka.errors import KafkaConnectionError

from stream.lag import MARKERS_AT_MOST, LagProbe, PartitionLag, Place

CLICKS = ("clickstream", 0)


class Broker:
    """OffsetsClient over three dictionaries."""

    def __init__(self) -> None:
        self.commits: dict[Place, int] = {}
        self.kept: dict[Place, tuple[int, int]] = {}
        self.markers: set[tuple[Place, int]] = set()
        self.looks = 0
        self.troubles: list[str] = []  # what the next calls meet: "refused" or "silence"

    async def committed(self, group: str, places: Sequence[Place]) -> dict[Place, int]:
        trouble = self.troubles.pop() if self.troubles else None
        if trouble == "refused":
            raise KafkaConnectionError("no broker")
        if trouble == "silence":
            await asyncio.Event().wait()
        return {place: self.commits[place] for place in places if place in self.commits}

    async def bounds(self, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        return {place: self.kept[place] for place in places if place in self.kept}

    async def nothing_to_read(self, place: Place, start: int, end: int) -> bool:
        self.looks += 1
        return all((place, offset) in self.markers for offset in range(start, end))


class Watched:
    """A probe on a broker, with a clock to turn and the readings it gave."""

    def __init__(self, places: Sequence[Place] = (CLICKS,)) -> None:
        self.broker, self.now_s = Broker(), 1000.0
        self.readings: list[Sequence[PartitionLag]] = []
        self.probe = LagProbe(
            self.broker, "prefstream-preference", lambda: places, self._take, lambda: self.now_s
        )
        self._given = asyncio.Event()

    def _take(self, reading: Sequence[PartitionLag]) -> None:
        self.readings.append(reading)
        self._given.set()

    async def at(self, now_s: float, committed: int | None, end: int, begin: int = 0):
        """The one partition's reading at a time."""
        self.now_s = 1000 + now_s
        if committed is not None:
            self.broker.commits[CLICKS] = committed
        self.broker.kept[CLICKS] = (begin, end)
        (reading,) = await self.probe.read()
        return reading

    async def next_reading(self) -> Sequence[PartitionLag]:
        await self._given.wait()
        self._given.clear()
        return self.readings[-1]


async def test_lag_is_the_end_offset_less_the_committed_one():
    reading = await Watched().at(0, committed=40, end=100)
    assert (reading.lag, reading.trimmed, reading.commit_age_s) == (60, 0, 0)


async def test_a_group_that_never_committed_lags_by_all_that_is_kept():
    reading = await Watched().at(0, committed=None, begin=10, end=100)
    assert (reading.committed, reading.lag, reading.trimmed) == (None, 90, 0)


async def test_what_was_deleted_before_it_was_committed_is_lost_not_lag():
    reading = await Watched().at(0, committed=40, begin=70, end=100)
    assert (reading.lag, reading.trimmed) == (30, 30)


async def test_a_topic_made_anew_gives_no_negative_lag():
    assert (await Watched().at(0, committed=500, end=3)).lag == 0


async def test_commit_age_grows_while_there_is_lag_and_no_commit():
    watched = Watched()
    ages = [
        (await watched.at(0, committed=40, end=200)).commit_age_s,
        (await watched.at(5, committed=40, end=300)).commit_age_s,
        (await watched.at(12, committed=40, end=300)).commit_age_s,
        (await watched.at(15, committed=41, end=300)).commit_age_s,  # a commit
        (await watched.at(17, committed=41, end=300)).commit_age_s,
    ]
    assert ages == [0, 5, 12, 0, 2]


async def test_an_idle_group_does_not_age_and_its_next_event_starts_from_nothing():
    watched = Watched()
    for now_s in (0, 1000):
        assert (await watched.at(now_s, committed=300, end=300)).commit_age_s == 0
    assert (await watched.at(1003, committed=300, end=301)).commit_age_s == 3


async def test_transaction_markers_are_neither_lag_nor_a_stall():
    watched = Watched()
    watched.broker.markers = {(CLICKS, 100)}
    await watched.at(0, committed=100, end=101)
    readings = [await watched.at(now_s, committed=100, end=101) for now_s in (5, 10, 15)]
    assert [(r.lag, r.commit_age_s) for r in readings] == [(0, 0)] * 3
    assert watched.broker.looks == 1  # once looked at, known


async def test_a_real_event_behind_a_marker_is_a_stall():
    watched = Watched()
    watched.broker.markers = {(CLICKS, 100)}
    await watched.at(0, committed=100, end=102)
    assert (await watched.at(60, committed=100, end=102)).commit_age_s == 60


async def test_a_long_lag_is_not_searched_for_markers():
    watched = Watched()
    for now_s in (0, 60):
        await watched.at(now_s, committed=0, end=MARKERS_AT_MOST + 1)
    assert watched.broker.looks == 0


async def test_partitions_age_by_themselves():
    searches = ("searches", 3)
    watched = Watched([CLICKS, searches])
    watched.broker.kept = {CLICKS: (0, 500), searches: (0, 500)}
    watched.broker.commits = {CLICKS: 1, searches: 1}
    await watched.probe.read()
    watched.now_s += 9
    watched.broker.commits[searches] = 2
    ages = {(r.topic, r.partition): r.commit_age_s for r in await watched.probe.read()}
    assert ages == {CLICKS: 9, searches: 0}


@pytest.mark.parametrize("trouble", ["refused", "silence"])
async def test_after_a_brokers_trouble_the_next_reading_comes(trouble, caplog):
    watched = Watched()
    watched.broker.kept[CLICKS] = (0, 7)
    watched.broker.troubles = [trouble] * 2
    task = asyncio.create_task(watched.probe.run(interval_s=0.001, timeout_s=0.05))
    (reading,) = await asyncio.wait_for(watched.next_reading(), 10)
    assert reading.lag == 7
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1  # not one per attempt
    assert warnings[0].startswith("lag unknown: group=prefstream-preference")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
