"""A counting stage killed anywhere, any number of times: exact in the end."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes import Killed
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.delivery import DeliveryFailed, Output
from stream.engine import commits
from stream.engine.app import add_table, new_app
from stream.engine.commits import Committer, Effect, PartitionCommit
from stream.engine.stores import MemoryStore, unstamp
from stream.engine.table import CONTROL, PartitionTable
from stream.settings import load_settings

CHANGELOG = "counts"
PARTITIONS = 2
KEYS = [b"a", b"b", b"c"]


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Every ledger is of several records; warnings of retries cost more than the retries."""
    logging.getLogger(commits.__name__).setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "CHUNK_BYTES", 450)
        yield
    logging.getLogger(commits.__name__).setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def table() -> PartitionTable:
    conf = load_settings(store="memory", state_dir=Path(tempfile.mkdtemp()))
    return add_table(new_app(conf, "preference"), conf, CHANGELOG)


@dataclass(frozen=True)
class Disaster:
    """What goes wrong in the n-th send; of each partition, a part of the messages arrives."""

    send: int
    arrives: tuple[float, float, float]
    kills: bool
    #: It is behind the changelog then, which is written first and read before anything is done.
    store_survives: bool
    #: So many of the last micro-batches were not committed to the broker yet.
    uncommitted: int


class Broker:
    """Keeps what arrived; per partition a prefix of what was sent, as Kafka does."""

    def __init__(self, disasters: Sequence[Disaster]) -> None:
        self.arrived: list[Output] = []
        self.n_sends = 0
        self.disasters = {disaster.send: disaster for disaster in disasters}
        self.killed_by: Disaster | None = None

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        disaster = self.disasters.get(self.n_sends)
        self.n_sends += 1
        first = len(self.arrived)
        if disaster is None:
            self.arrived += outputs
            return list(range(first, len(self.arrived)))
        by_partition: dict[tuple[str, int], list[Output]] = {}
        for output in outputs:
            by_partition.setdefault((output.topic, self._partition(output)), []).append(output)
        for number, of_it in enumerate(by_partition.values()):
            share = disaster.arrives[number % len(disaster.arrives)]
            self.arrived += of_it[: round(share * len(of_it))]
        if disaster.kills:
            self.killed_by = disaster
            raise Killed
        raise DeliveryFailed("topic: timed out")

    @staticmethod
    def _partition(output: Output) -> int:
        return (output.key or b"0")[-1] % 3 if output.partition is None else output.partition

    def partition_of(self, topic: str, key: bytes) -> int:
        return key[-1] % 3


class Impatient(Committer):
    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Counter:
    """Counts the events of each key; every event causes an output that tells of this life."""

    def __init__(self, table: PartitionTable, broker: Broker, life: int) -> None:
        self.table, self.life = table, life
        self.committer = Impatient(table, broker, CHANGELOG)

    async def process(self, batch: Sequence[tuple[int, int]]) -> None:
        """Count a micro-batch of (partition, offset)."""
        done: dict[int, PartitionCommit] = {}
        for partition, offset in batch:
            commit = done.setdefault(partition, PartitionCommit(partition))
            key = KEYS[offset % len(KEYS)]
            row = commit.rows.get(key) or self.table.rows(partition, [key])[0]
            seen, count = (-1, 0) if row is None else msgspec.msgpack.decode(row)
            commit.through["in"] = offset
            if offset <= seen:  # what a row reflects is folded no more and causes nothing
                continue
            commit.rows[key] = msgspec.msgpack.encode((offset, count + 1))
            if offset > self.committer.through(partition, "in"):
                name = f"{partition}:{offset}"
                value = b"life %d of a batch of %d" % (self.life, len(batch))
                commit.effects.append(Effect(name, "out", name.encode(), value))
        await self.committer.commit(list(done.values()))


def restored(table: PartitionTable, broker: Broker, store_survives: bool = False) -> None:
    """Begin with an empty store, or with the one that is left, and what the changelog says."""
    if not store_survives:
        table._data = None  # type: ignore[assignment]
    store = table.data
    assert isinstance(store, MemoryStore)
    records: list[Any] = [
        SimpleNamespace(
            message=SimpleNamespace(
                key=output.key,
                value=output.value,
                offset=offset,
                partition=output.partition,
                tp=TP(CHANGELOG, output.partition or 0),
            )
        )
        for offset, output in enumerate(broker.arrived)
        if output.topic == CHANGELOG
    ]
    store.apply_changelog_batch(records, bytes, bytes)


async def run(
    table: PartitionTable, n_events: int, sizes: Sequence[int], disasters: Sequence[Disaster]
) -> Broker:
    """Process all events, however often it takes."""
    broker = Broker(disasters)
    log = [(offset % PARTITIONS, offset // PARTITIONS) for offset in range(n_events)]
    committed: list[int] = [0]
    restored(table, broker)
    life = 0
    while True:
        stage = Counter(table, broker, life)
        try:
            await stage.committer.hold(set(range(PARTITIONS)))
            while committed[-1] < n_events:
                start = committed[-1]
                end = min(start + sizes[(life + start) % len(sizes)], n_events)
                await stage.process(log[start:end])
                committed.append(end)
            return broker
        except Killed:
            life += 1
            assert broker.killed_by is not None
            del committed[max(len(committed) - broker.killed_by.uncommitted, 1) :]
            restored(table, broker, broker.killed_by.store_survives)


disasters = st.lists(
    st.builds(
        Disaster,
        send=st.integers(0, 16),
        arrives=st.tuples(*[st.floats(0, 1)] * 3),
        kills=st.sampled_from([True, True, False]),
        store_survives=st.booleans(),
        uncommitted=st.integers(0, 3),
    ),
    max_size=5,
)


@settings(max_examples=200)
@given(
    n_events=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 15), min_size=1, max_size=5),
    disasters=disasters,
)
def test_whatever_ends_the_process_every_event_counts_once_and_every_output_is_there(
    table: PartitionTable, n_events: int, sizes: list[int], disasters: list[Disaster]
) -> None:
    broker = asyncio.run(run(table, n_events, sizes, disasters))
    expected: dict[tuple[int, bytes], int] = {}
    names = set()
    for number in range(n_events):
        partition, offset = number % PARTITIONS, number // PARTITIONS
        place = partition, KEYS[offset % len(KEYS)]
        expected[place] = expected.get(place, 0) + 1
        names.add(f"{partition}:{offset}".encode())
    by_name: dict[bytes, set[bytes | None]] = {}
    for output in broker.arrived:
        if output.topic == "out":
            by_name.setdefault(output.key or b"", set()).add(output.value)
    assert by_name.keys() == names
    assert all(len(values) == 1 for values in by_name.values()), by_name
    # The store, and what another worker would restore.
    for _ in range(2):
        assert counts(table) == expected
        restored(table, broker)


def counts(table: PartitionTable) -> dict[tuple[int, bytes], int]:
    found = {}
    for partition in range(PARTITIONS):
        for key, row in table.scan(partition, b"", 100):
            assert not key.startswith(CONTROL)
            found[partition, key] = msgspec.msgpack.decode(row)[1]
    return found


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3), disasters=disasters)
def test_sequences_never_fall_in_a_changelog(
    table: PartitionTable, sizes: list[int], disasters: list[Disaster]
) -> None:
    broker = asyncio.run(run(table, 20, sizes, disasters))
    latest: dict[tuple[int | None, bytes | None], int] = {}
    for output in broker.arrived:
        if output.topic == CHANGELOG and output.value is not None:
            sequence = unstamp(output.value)[0]
            place = output.partition, output.key
            assert sequence >= latest.get(place, 0)
            latest[place] = sequence
