"""The follower: item topics -> catalogue, through restarts, other encoders and absent brokers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builders
import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError

from models.catalogue import Catalogue
from stream.catalog import FOLLOWED, CatalogFollower
from stream.catalog_writer import CatalogWriter
from stream.messages import ItemEmbedding, ItemNeighbours, to_fp16, to_message
from stream.settings import Settings

DIM, ENCODER, PREFIX = 8, "e", "t."
N_PARTITIONS = 2


@dataclass(frozen=True)
class Logged:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class FakeBroker:
    """Topics as lists; ``begins`` says how much of a partition's start is gone."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[Logged]] = {
            TopicPartition(PREFIX + topic, p): [] for topic in FOLLOWED for p in range(N_PARTITIONS)
        }
        self.begins: dict[TopicPartition, int] = {}
        self.away = False
        self.n_connections = 0
        self.n_read = 0

    def put(
        self, topic: str, key: str | bytes | None, value: bytes | None, partition: int = 0
    ) -> Logged:
        tp = TopicPartition(PREFIX + topic, partition)
        raw_key = key.encode() if isinstance(key, str) else key
        record = Logged(tp.topic, partition, len(self.logs[tp]), raw_key, value)
        self.logs[tp].append(record)
        return record

    def put_item(self, item_id: str, partition: int = 0, **fields: Any) -> Logged:
        value = msgspec.json.encode(builders.item(item_id=item_id, **fields))
        return self.put("items", item_id, value, partition)

    def put_vector(self, item_id: str, axis: int = 0, **fields: Any) -> Logged:
        vector = np.eye(DIM, dtype=np.float32)[axis]
        base = {"encoder": ENCODER, "dim": DIM, "text_hash": b"h", "vector": to_fp16(vector)}
        message = ItemEmbedding(**{"item_id": item_id, **base, **fields})
        return self.put("item-embeddings", item_id, to_message(message), 1)

    def put_neighbours(self, item_id: str, others: Sequence[tuple[str, float]]) -> Logged:
        message = ItemNeighbours(
            item_id=item_id,
            as_of_ms=builders.NOW_MS,
            n_users=4.0,
            neighbours=list(others),
            popularity=1.0,
            regions={"north": 1.0},
        )
        return self.put("item-neighbours", item_id, to_message(message), 0)

    def recreate(self) -> None:
        for log in self.logs.values():
            log.clear()


class FakeConsumer:
    """Reads a FakeBroker as aiokafka's consumer reads Kafka, without a group."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._next: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        self._check()
        self._broker.n_connections += 1

    async def stop(self) -> None:
        self._next.clear()

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._next = dict.fromkeys(partitions, -1)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._next[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._next[partition]

    async def beginning_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        self._check()
        return {tp: self._broker.begins.get(tp, 0) for tp in partitions}

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._check()
        return {tp: len(self._broker.logs[tp]) for tp in partitions}

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Logged]]:
        self._check()
        await asyncio.sleep(0)
        batches = {}
        for tp, start in self._next.items():
            log = self._broker.logs[tp]
            if start > len(log):
                raise OffsetOutOfRangeError({tp: start})
            if log[start:]:
                batches[tp] = log[start : start + max_records]
                self._next[tp] = start + len(batches[tp])
                self._broker.n_read += len(batches[tp])
        if not batches:
            await asyncio.sleep(min(timeout_ms / 1000, 0.02))
        return batches

    def _check(self) -> None:
        if self._broker.away:
            raise KafkaConnectionError("no broker")


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


class Worker:
    """A catalogue and its follower, as a worker process holds them."""

    def __init__(self, broker: FakeBroker, state_dir: Path, **options: Any) -> None:
        settings = Settings(topic_prefix=PREFIX, partitions=N_PARTITIONS, state_dir=state_dir)
        self.catalogue = Catalogue(DIM)
        self.follower = CatalogFollower(
            settings,
            self.catalogue,
            options.pop("encoder_id", ENCODER),
            make_consumer=lambda: FakeConsumer(broker),
            clock=lambda: builders.NOW_MS,
            **options,
        )

    async def up(self) -> Worker:
        await self.follower.start()
        await asyncio.wait_for(self.follower.caught_up(), 10)
        return self

    def items(self) -> set[str]:
        rows = self.catalogue.new_arrivals(100, builders.NOW_MS)
        return {self.catalogue.item_id(row) for row in rows.tolist()}


@pytest.fixture
async def worker(broker: FakeBroker, tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(broker, tmp_path)
    yield worker
    await worker.follower.stop()


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited ten seconds in vain")


# The writer: records -> catalogue ----------------------------------------------------------------


def writer(catalogue: Catalogue | None = None) -> CatalogWriter:
    return CatalogWriter(Catalogue(DIM) if catalogue is None else catalogue, ENCODER, PREFIX)


def test_an_item_is_there_once_its_facts_and_vector_are_applied(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    record = broker.put_item("a", title="靴", categories=["x"], in_stock=True, price=2.0)
    writer(catalogue).apply([broker.put_vector("a"), record])
    facts = catalogue.facts("a")
    assert len(catalogue) == 1
    assert facts is not None
    assert (facts.title, facts.categories, facts.price) == ("靴", ("x",), 2.0)


def test_of_an_item_in_one_batch_the_last_record_counts(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    records = [broker.put_vector("a"), broker.put_vector("b"), broker.put_item("a")]
    records += [broker.put("items", "a", None), broker.put_item("b", title="1")]
    records += [broker.put("items", "b", None), broker.put_item("b", title="2")]
    writer(catalogue).apply(records)
    assert catalogue.facts("a") is None
    assert len(catalogue) == 1
    facts = catalogue.facts("b")
    assert facts is not None
    assert facts.title == "2"


def test_a_tombstone_read_late_does_not_take_the_vector_of_a_newer_life(
    broker: FakeBroker,
) -> None:
    catalogue = Catalogue(DIM)
    apply = writer(catalogue).apply
    # The shop: item, tombstone, item again. The vectors of both lives are read first.
    apply([broker.put_vector("a"), broker.put("item-embeddings", "a", None, 1)])
    apply([broker.put_vector("a")])
    apply([broker.put_item("a"), broker.put("items", "a", None)])
    assert len(catalogue) == 0
    apply([broker.put_item("a")])
    assert len(catalogue) == 1


def test_a_tombstone_of_its_own_topic_takes_each_part(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    apply = writer(catalogue).apply
    apply([broker.put_item("a"), broker.put_vector("a"), broker.put_neighbours("a", [("b", 2.0)])])
    apply([broker.put_neighbours("b", [("a", 2.0)])])
    row = catalogue.row("a")
    assert len(catalogue.neighbours(row)[0]) == 1
    apply([broker.put("item-neighbours", "a", None), broker.put("item-embeddings", "a", None, 1)])
    assert len(catalogue.neighbours(row)[0]) == 0
    assert not catalogue.raw_vectors(["a"])[1].any()
    assert catalogue.facts("a") is not None


def test_neighbours_arrive_with_popularity(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    records = [broker.put_neighbours("a", [("b", 2.0)]), broker.put_neighbours("b", [("a", 2.0)])]
    for item_id in ("a", "b", "c"):
        records += [broker.put_item(item_id), broker.put_vector(item_id)]
    writer(catalogue).apply(records)
    rows, strengths = catalogue.neighbours(catalogue.row("a"))
    assert [catalogue.item_id(row) for row in rows.tolist()] == ["b"]
    assert strengths.tolist() == pytest.approx([0.5])
    popular = catalogue.popular(2, "north", builders.NOW_MS)
    assert {catalogue.item_id(row) for row in popular.tolist()} == {"a", "b"}


@pytest.mark.parametrize(
    "foreign",
    [
        {"encoder": "another"},
        {"dim": DIM + 1, "vector": bytes(2 * (DIM + 1))},
        {"vector": np.full(DIM, np.nan, "<f2").tobytes()},
    ],
    ids=["encoder", "dimension", "nan"],
)
def test_foreign_vectors_are_refused_counted_and_logged_once(
    broker: FakeBroker, caplog: pytest.LogCaptureFixture, foreign: dict[str, Any]
) -> None:
    catalogue = Catalogue(DIM)
    subject = writer(catalogue)
    with caplog.at_level(logging.WARNING):
        subject.apply([broker.put_vector("a", **foreign), broker.put_vector("b", **foreign)])
        subject.apply([broker.put_vector("c", **foreign), broker.put_vector("d")])
    assert subject.n_refused == 3
    assert catalogue.raw_vectors(["a", "b", "c", "d"])[1].tolist() == [False] * 3 + [True]
    assert len([r for r in caplog.records if "refused" in r.message]) == 1


@pytest.mark.parametrize("topic", FOLLOWED)
@pytest.mark.parametrize(
    ("key", "value"),
    [("a", b"\xff not it"), ("a", b""), (b"\xff", None), (None, b"{}"), (None, None)],
)
def test_malformed_records_are_counted_and_change_nothing(
    broker: FakeBroker, topic: str, key: str | bytes | None, value: bytes | None
) -> None:
    catalogue = Catalogue(DIM)
    subject = writer(catalogue)
    subject.apply([broker.put_item("a"), broker.put_vector("a")])
    subject.apply([broker.put(topic, key, value), broker.put_item("b"), broker.put_vector("b")])
    assert subject.n_malformed == {topic: 1}
    assert len(catalogue) == 2


def test_applying_records_again_changes_nothing(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    records = [broker.put_item("a"), broker.put_vector("a", 1), broker.put_vector("b", 2)]
    records += [broker.put("items", "a", None), broker.put_item("a", title="again")]
    subject = writer(catalogue)
    subject.apply(records)
    before = catalogue.raw_vectors(["a", "b"])[0], catalogue.facts("a")
    subject.apply(records)
    np.testing.assert_array_equal(catalogue.raw_vectors(["a", "b"])[0], before[0])
    assert catalogue.facts("a") == before[1]


# The follower: broker -> records -----------------------------------------------------------------


async def test_everything_in_the_topics_is_applied_before_it_has_caught_up(
    broker: FakeBroker, worker: Worker
) -> None:
    for i in range(50):
        broker.put_item(f"i{i}", partition=i % 2)
        broker.put_vector(f"i{i}", i % DIM)
    await worker.up()
    assert worker.items() == {f"i{i}" for i in range(50)}
    assert worker.follower.lag == dict.fromkeys(FOLLOWED, 0)


async def test_it_goes_on_following(broker: FakeBroker, worker: Worker) -> None:
    await worker.up()
    before = worker.follower.last_progress_monotonic
    broker.put_item("late")
    broker.put_vector("late")
    await until(lambda: worker.items() == {"late"})
    broker.put("items", "late", None)
    await until(lambda: worker.items() == set())
    assert worker.follower.last_progress_monotonic > before


async def test_a_restart_reads_only_what_is_newer_than_its_snapshot(
    broker: FakeBroker, tmp_path: Path
) -> None:
    for i in range(9):
        broker.put_item(f"i{i}")
        broker.put_vector(f"i{i}", i % DIM)
    await (await Worker(broker, tmp_path).up()).follower.stop()
    broker.put_item("late")
    broker.put_vector("late")
    broker.put("items", "i3", None)
    broker.n_read = 0
    restarted = await Worker(broker, tmp_path).up()
    assert broker.n_read == 3
    assert restarted.items() == {f"i{i}" for i in range(9)} - {"i3"} | {"late"}
    await restarted.follower.stop()


async def test_a_snapshot_is_written_from_time_to_time(broker: FakeBroker, tmp_path: Path) -> None:
    worker = await Worker(broker, tmp_path, snapshot_every_s=0.0).up()
    broker.put_item("a")
    await until(lambda: list(tmp_path.glob("catalogue/snapshot-*/manifest.json")))
    await worker.follower.stop()


async def test_a_state_folder_that_cannot_be_written_does_not_stop_it(
    broker: FakeBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "catalogue").write_text("a file where the folder should be")
    worker = await Worker(broker, tmp_path, snapshot_every_s=0.0).up()
    broker.put_item("a")
    broker.put_vector("a")
    await until(lambda: "snapshot not written" in caplog.text)
    await until(lambda: worker.items() == {"a"})
    await worker.follower.stop()


async def test_another_encoder_starts_from_the_beginning(
    broker: FakeBroker, tmp_path: Path
) -> None:
    broker.put_item("a")
    broker.put_vector("a")
    await (await Worker(broker, tmp_path).up()).follower.stop()
    broker.put_vector("a", encoder="new")
    worker = await Worker(broker, tmp_path, encoder_id="new").up()
    assert worker.items() == {"a"}
    assert worker.follower.refused_vectors == 1
    await worker.follower.stop()


async def test_a_recreated_topic_is_read_from_its_beginning_into_an_empty_catalogue(
    broker: FakeBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    for item_id in ("a", "b"):
        broker.put_item(item_id)
        broker.put_vector(item_id)
    await worker.up()
    broker.recreate()
    broker.put_item("new")
    broker.put_vector("new")
    await until(lambda: worker.items() == {"new"})
    await asyncio.wait_for(worker.follower.caught_up(), 10)
    assert "starts over" in caplog.text


async def test_a_snapshot_older_than_what_the_topic_keeps_is_not_built_upon(
    broker: FakeBroker, tmp_path: Path
) -> None:
    broker.put_item("a")
    broker.put_vector("a")
    await (await Worker(broker, tmp_path).up()).follower.stop()
    tp = TopicPartition(PREFIX + "items", 0)
    for item_id in ("b", "c"):
        broker.put_item(item_id)
        broker.put_vector(item_id)
    broker.begins[tp] = 2
    worker = await Worker(broker, tmp_path).up()
    assert worker.items() == {"c"}
    await worker.follower.stop()


async def test_it_waits_for_an_absent_broker_and_says_so(
    broker: FakeBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.put_item("a")
    broker.put_vector("a")
    broker.away = True
    await worker.follower.start()
    await until(lambda: "no broker" in caplog.text)
    assert worker.items() == set()
    broker.away = False
    await asyncio.wait_for(worker.follower.caught_up(), 10)
    assert worker.items() == {"a"}


async def test_it_reads_on_where_it_was_when_the_broker_comes_back(
    broker: FakeBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.put_item("a")
    broker.put_vector("a")
    await worker.up()
    broker.away, broker.n_read = True, 0
    await until(lambda: "no broker" in caplog.text)
    assert worker.items() == {"a"}, "what is known stays"
    broker.away = False
    broker.put_item("b")
    broker.put_vector("b")
    await until(lambda: worker.items() == {"a", "b"})
    assert broker.n_read == 2
    assert broker.n_connections == 2


async def test_a_bug_reaches_those_who_wait(broker: FakeBroker, tmp_path: Path) -> None:
    class Broken(FakeConsumer):
        async def getmany(self, **_: Any) -> Any:
            raise ZeroDivisionError("a bug")

    worker = Worker(broker, tmp_path)
    follower = CatalogFollower(
        Settings(topic_prefix=PREFIX, partitions=N_PARTITIONS, state_dir=tmp_path),
        worker.catalogue,
        ENCODER,
        make_consumer=lambda: Broken(broker),
    )
    await follower.start()
    for wait in (follower.caught_up, follower.watch):
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await asyncio.wait_for(wait(), 10)
    await follower.stop()


async def test_stop_before_the_broker_came_ends_the_waiting(
    broker: FakeBroker, tmp_path: Path
) -> None:
    broker.away = True
    worker = Worker(broker, tmp_path)
    await worker.follower.start()
    waiting = asyncio.create_task(worker.follower.caught_up())
    await asyncio.sleep(0)
    await worker.follower.stop()
    with pytest.raises(RuntimeError, match="stopped before it had caught up"):
        await asyncio.wait_for(waiting, 10)
    assert not (tmp_path / "catalogue").exists()
