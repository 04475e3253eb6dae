"""The follower: item topics -> catalogue, through restarts, other encoders, absent brokers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from aiokafka import TopicPartition
from catalog_broker import DIM, ENCODER, N_PARTITIONS, PREFIX, FakeBroker, FakeConsumer

from models.catalogue import Catalogue
from stream.catalog import FOLLOWED, CatalogFollower
from stream.settings import Settings
from stream.spaces import OtherEncoder


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


class Worker:
    """A catalogue and its follower, as a worker process holds them."""

    def __init__(self, broker: FakeBroker, state_dir: Path, **options: Any) -> None:
        settings = Settings(topic_prefix=PREFIX, partitions=N_PARTITIONS, state_dir=state_dir)
        self.catalogue = Catalogue(DIM, cooccurrence_ridge=options.pop("ridge", 0.0))
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


async def test_what_comes_at_once_later_is_applied_whole_and_never_in_a_thread(
    broker: FakeBroker, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread would take the interpreter from the ranking while shoppers wait."""
    await worker.up()
    ours, threads, slices = threading.get_ident(), set[int](), list[int]()
    apply = worker.follower._writer.apply

    def noted(records: Sequence[Any]) -> None:
        threads.add(threading.get_ident())
        slices.append(len(records))
        apply(records)

    monkeypatch.setattr(worker.follower._writer, "apply", noted)
    for i in range(80):
        broker.put_item(f"i{i}")
        broker.put_vector(f"i{i}", i % DIM)
    await until(lambda: len(worker.items()) == 80)
    assert threads == {ours}
    assert max(slices) <= 32


async def test_items_are_told_apart_before_it_has_caught_up_and_again_when_rested(
    broker: FakeBroker, tmp_path: Path
) -> None:
    for item in ("b", "c"):
        broker.put_neighbours(item, [("a", 3.0)])
    broker.put_neighbours("d", [])
    broker.put_neighbours("a", [("b", 3.0), ("c", 3.0)])
    worker = await Worker(broker, tmp_path, ridge=1.0).up()
    catalogue = worker.catalogue
    assert not catalogue.correlate_due
    row = catalogue._row_of["a"]  # of which the shop has said nothing
    broker.put_neighbours("a", [("b", 3.0), ("c", 3.0), ("d", 3.0)])
    await until(lambda: catalogue.correlate_due)
    assert len(catalogue.neighbours(np.array([row]))[0]) == 2
    worker.follower._correlate_at = 0.0
    await until(lambda: len(catalogue.neighbours(np.array([row]))[0]) == 3)
    await worker.follower.stop()


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


async def test_a_worker_with_an_encoder_of_which_no_vector_is_goes_no_further(
    broker: FakeBroker, tmp_path: Path
) -> None:
    for item_id in ("a", "b"):
        broker.put_item(item_id)
        broker.put_vector(item_id)
    worker = await Worker(broker, tmp_path, encoder_id="new").up()
    with pytest.raises(OtherEncoder, match=r"all of 2 item vectors: .* new \(8 .*, got e \(8 "):
        worker.follower.require_own_vectors()
    broker.put_vector("b", encoder="new")
    await until(lambda: worker.catalogue.n_vectors)
    worker.follower.require_own_vectors()
    await worker.follower.stop()


async def test_rows_that_may_be_of_another_encoder_are_told_by_its_item_vectors(
    broker: FakeBroker, tmp_path: Path
) -> None:
    broker.put_vector("a", encoder="old")
    broker.put_vector("b")
    worker = await Worker(broker, tmp_path).up()
    worker.follower.require_own_vectors()
    with pytest.raises(OtherEncoder, match=r"^rows: expected .* e \(8 .* some of old \(8 "):
        worker.follower.require_no_foreign_vectors("rows")
    await worker.follower.stop()


async def test_a_catalogue_that_is_being_encoded_is_waited_for(
    broker: FakeBroker, worker: Worker
) -> None:
    for number in range(50):
        broker.put_item(f"i{number}")
    broker.put_vector("i0", encoder="old")
    await worker.up()
    reasons: list[str] = []
    waiting = asyncio.create_task(worker.follower.vectors_there(reasons.append))
    await until(lambda: reasons)
    assert reasons[0] == ("50 of 50 items have no vector of encoder e, 1 of another were left out")
    for number in range(48):
        broker.put_vector(f"i{number}")
    await until(lambda: worker.catalogue.n_vectors == 48)
    assert not waiting.done()
    broker.put_vector("i48")
    await asyncio.wait_for(waiting, 5)


async def test_vectors_that_never_come_are_not_waited_for_for_ever(
    broker: FakeBroker, worker: Worker
) -> None:
    broker.put_item("a")
    await worker.up()
    await asyncio.wait_for(worker.follower.vectors_there(lambda _: None, patience_s=0.0), 5)


async def test_a_shop_without_items_waits_for_no_vector(worker: Worker) -> None:
    await worker.up()
    worker.follower.require_own_vectors()
    await worker.follower.vectors_there(lambda _: pytest.fail("waits"))


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
