from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.engine import consumer as module
from stream.engine.app import EngineApp, add_table, new_app
from stream.engine.consumer import CommittedPositions, EngineConsumer
from stream.engine.runs import Run, RunQueue
from stream.settings import load_settings

SOURCE, OTHER, CHANGELOG = TP("users", 0), TP("clickstream", 0), TP("user-state", 0)


def record(offset: int, tp: TP = SOURCE) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(*tp, offset, 0, 0, b"k", b"v", None, 1, 1, ())


def fetched(*offsets: int, tp: TP = SOURCE) -> dict[TP, Any]:
    return {tp: [record(offset, tp) for offset in offsets]}


class Taking:
    """A stream: what it was handed, and how it acknowledges what it is done with."""

    def __init__(self, app: EngineApp) -> None:
        app.flow_control.resume()
        topic = app.topic(SOURCE.topic, partitions=4)
        channel: Any = topic.clone(is_iterator=True)
        self.queue: RunQueue = channel.queue
        self.runs: list[Run] = []
        app.topics._tp_index[SOURCE] = app.topics._tp_index[OTHER] = {channel}
        self._app = app

    @property
    def offsets(self) -> list[int]:
        """The offsets of all that was handed over, in order."""
        while not self.queue.empty():
            self.runs.append(self.queue.get_nowait())
        return [record.offset for run in self.runs for record in run.records]

    def finish(self, n: int) -> None:
        """Take the next n records, and be done with them."""
        consumer: Any = self._app.consumer
        assert self.offsets
        for run in self.runs:
            if n and len(run):
                part = run.take(n)
                consumer.track(part)
                consumer.done(part)
                n -= len(part.records)


@pytest.fixture
async def app(tmp_path: Path) -> EngineApp:
    app = new_app(load_settings(state_dir=tmp_path), "preference")
    app.topics._acking_topics |= {SOURCE.topic, OTHER.topic}
    return app


@pytest.fixture
async def stream(app: EngineApp) -> Taking:
    return Taking(app)


@pytest.fixture
async def consumer(app: EngineApp, monkeypatch: pytest.MonkeyPatch) -> EngineConsumer:
    consumer: Any = app.consumer
    consumer._set_active_tps({SOURCE, CHANGELOG})
    consumer.resume_flow()
    consumer.sought = []

    async def seek_wait(offsets: dict[TP, int]) -> None:
        consumer.sought.append(offsets)

    monkeypatch.setattr(consumer, "seek_wait", seek_wait)
    monkeypatch.setattr(consumer, "highwater", lambda tp: 100)
    return consumer  # type: ignore[no-any-return]


def committed_at(consumer: Any, offset: int) -> None:
    """Let the broker know a committed offset, and the consumer go to it."""

    async def seek_to_committed() -> dict[TP, int]:
        return {SOURCE: offset}

    consumer.seek_to_committed = seek_to_committed


def fetch_of(consumer: Any) -> Any:
    """Return what a fetch that begins now is of."""
    return consumer._now()


async def hand_over(consumer: Any, records: dict[TP, Any]) -> bool:
    return bool(await consumer._hand_over(records, fetch_of(consumer)))


async def twice(consumer: Any, records: dict[TP, Any]) -> None:
    """Hand over what the broker gives once more when it is asked for what is missing."""
    await hand_over(consumer, records)
    await hand_over(consumer, records)


async def test_only_the_acknowledged_beginning_is_committed(consumer: Any, stream: Taking) -> None:
    committed_at(consumer, 59)
    await consumer.perform_seek()
    assert await hand_over(consumer, fetched(59, 60, 61))
    assert await hand_over(consumer, fetched(62))

    assert consumer._new_offset(SOURCE) is None
    stream.finish(2)
    assert consumer._new_offset(SOURCE) == 61
    assert consumer._new_offset(SOURCE) is None
    stream.finish(2)
    assert consumer._new_offset(SOURCE) == 63
    assert consumer._new_offset(SOURCE) is None


async def test_a_run_that_was_dropped_holds_up_all_behind_it(consumer: Any, stream: Taking) -> None:
    await hand_over(consumer, fetched(5, 6))
    await hand_over(consumer, fetched(7))
    stream.finish(1)
    [_, behind] = stream.runs
    consumer.done(behind.take(1))
    assert consumer._new_offset(SOURCE) == 6
    assert consumer._new_offset(SOURCE) is None


async def test_fausts_own_consumer_commits_past_the_event_at_the_head(consumer: Any) -> None:
    """Why the order of handing over is kept: if this fails, Faust has mended it."""
    committed_at(consumer, 59)
    await consumer.perform_seek()
    consumer._acked[SOURCE].append(60)

    assert driver.Consumer._new_offset(consumer, SOURCE) == 61


async def test_what_faust_commits_is_what_is_done(
    consumer: Any, stream: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[TP, int]] = []

    async def commit_offsets(offsets: dict[TP, int], **_: Any) -> bool:
        sent.append(offsets)
        return True

    monkeypatch.setattr(consumer, "_commit_offsets", commit_offsets)
    await hand_over(consumer, {**fetched(5, 6), **fetched(1, tp=OTHER)})
    stream.finish(1)
    await consumer.commit()
    assert sent == [{SOURCE: 6}]


async def test_a_part_is_in_progress_until_it_is_done(consumer: Any, stream: Taking) -> None:
    await hand_over(consumer, fetched(5, 6))
    assert stream.offsets == [5, 6]
    part = stream.runs[0].take(1)
    consumer.track(part)
    assert list(consumer.unacked) == [part]
    consumer.done(part)
    assert not consumer.unacked


async def test_before_the_first_commit_nothing_is_passed_over_either(
    consumer: Any, stream: Taking
) -> None:
    await hand_over(consumer, fetched(0))
    await hand_over(consumer, fetched(1))
    assert stream.offsets == [0, 1]
    consumer.done(stream.runs[1].take(1))
    assert consumer._new_offset(SOURCE) is None


async def test_what_compaction_has_removed_does_not_hold_commits_up(
    consumer: Any, stream: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def earliest_offsets(*_: TP) -> dict[TP, int]:
        return {SOURCE: 0}

    monkeypatch.setattr(consumer, "earliest_offsets", earliest_offsets)
    await hand_over(consumer, fetched(3, 5))
    await twice(consumer, fetched(9))
    stream.finish(2)
    assert consumer._new_offset(SOURCE) == 6
    stream.finish(1)
    assert consumer._new_offset(SOURCE) == 10


async def test_events_deleted_before_they_were_read_are_reported(
    consumer: Any, stream: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def earliest_offsets(*_: TP) -> dict[TP, int]:
        return {SOURCE: 70}

    lost: list[tuple[TP, int]] = []
    monkeypatch.setattr(consumer, "earliest_offsets", earliest_offsets)
    consumer.app.on_events_lost = lambda tp, n: lost.append((tp, n))
    committed_at(consumer, 59)
    await consumer.perform_seek()

    await twice(consumer, fetched(70, 71))

    assert lost == [(SOURCE, 11)]


async def test_records_fetched_before_going_back_are_not_handed_over(
    consumer: Any, stream: Taking
) -> None:
    committed_at(consumer, 59)
    before = fetch_of(consumer)
    await consumer.perform_seek()

    assert not await consumer._hand_over(fetched(60, 61), before)
    assert await hand_over(consumer, fetched(59, 60, 61))
    assert stream.offsets == [59, 60, 61]


async def test_an_event_is_handed_over_once_until_the_consumer_goes_back(
    consumer: Any, stream: Taking
) -> None:
    committed_at(consumer, 59)
    await hand_over(consumer, fetched(59, 60))
    await hand_over(consumer, fetched(59, 60, 61))
    assert stream.offsets == [59, 60, 61]

    await consumer.perform_seek()
    await hand_over(consumer, fetched(59))
    assert stream.offsets == [59, 60, 61, 59]


async def test_records_that_were_fetched_and_never_came_are_read_again(
    consumer: Any, stream: Taking
) -> None:
    await hand_over(consumer, fetched(5, 6))
    assert await hand_over(consumer, fetched(9, 10))
    assert consumer.sought == [{SOURCE: 7}]
    await hand_over(consumer, fetched(7, 8, 9, 10))
    assert stream.offsets == [5, 6, 7, 8, 9, 10]


async def test_when_the_flow_stops_the_rest_is_left_for_going_back(
    consumer: Any, stream: Taking
) -> None:
    consumer.app.flow_control.suspend()
    handing = asyncio.create_task(hand_over(consumer, fetched(5, 6)))
    await asyncio.sleep(0.01)
    consumer.stop_flow()
    assert not await handing
    assert stream.offsets == []

    consumer.app.flow_control.resume()
    consumer.resume_flow()
    assert await hand_over(consumer, fetched(5, 6))
    assert stream.offsets == [5, 6]


async def test_what_waited_for_room_while_the_consumer_went_back_is_not_handed_over(
    consumer: Any, stream: Taking
) -> None:
    committed_at(consumer, 5)
    stream.queue._maxsize = 1
    assert await hand_over(consumer, fetched(5))
    handing = asyncio.create_task(hand_over(consumer, fetched(6)))
    await asyncio.sleep(0.01)
    await consumer.perform_seek()
    assert stream.offsets == [5]
    assert not await handing
    assert await hand_over(consumer, fetched(5, 6))
    assert stream.offsets == [5, 5, 6]


async def test_going_back_forgets_what_was_handed_over_before(
    consumer: Any, stream: Taking
) -> None:
    committed_at(consumer, 59)
    await consumer.perform_seek()
    await hand_over(consumer, fetched(59, 60))
    await consumer.perform_seek()
    await hand_over(consumer, fetched(59, 60, 61))

    stream.finish(2)
    assert consumer._new_offset(SOURCE) is None  # those of before
    stream.finish(3)
    assert consumer._new_offset(SOURCE) == 62


async def test_nothing_behind_what_a_paused_partition_left_out_is_handed_over(
    consumer: Any, stream: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition resumed while its records are looked through would begin in their middle."""
    consumer._set_active_tps({SOURCE, OTHER})
    consumer.pause_partitions({SOURCE})
    monkeypatch.setattr(module, "RUN_RECORDS", 1)
    take = consumer.app.topics.take

    def resuming(run: Run, queue: RunQueue) -> bool:
        consumer.resume_partitions({SOURCE})
        return bool(take(run, queue))

    monkeypatch.setattr(consumer.app.topics, "take", resuming)
    both = {**fetched(5, 6, 7), **fetched(1, tp=OTHER)}

    assert not await hand_over(consumer, both)
    assert stream.offsets == [1]


async def test_partitions_are_handed_over_by_turns(
    consumer: Any, stream: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer._set_active_tps({SOURCE, OTHER})
    monkeypatch.setattr(module, "RUN_RECORDS", 2)
    assert await hand_over(consumer, {**fetched(5, 6, 7), **fetched(1, 2, 3, tp=OTHER)})
    assert stream.offsets == [5, 6, 1, 2, 7, 3]
    assert {type(run.tp) for run in stream.runs} == {TP}


async def test_a_topic_that_no_stream_reads_is_an_error(consumer: Any) -> None:
    consumer.app.topics._tp_index.clear()
    with pytest.raises(RuntimeError, match="expected one stream of users, got 0"):
        await hand_over(consumer, fetched(5))


class Fetcher:
    """What the consumer asks of the service that fetches: whether it has ended."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()


async def test_records_left_out_make_the_consumer_go_back_before_it_fetches_again(
    consumer: Any, stream: Taking
) -> None:
    committed_at(consumer, 59)
    await consumer.perform_seek()
    fetcher, fetches = Fetcher(), 0

    async def next_records(_: float) -> tuple[dict[TP, Any], None]:
        nonlocal fetches
        fetches += 1
        if fetches == 1:  # the recovery goes back while these are on their way
            await consumer.perform_seek()
            return fetched(64, 65), None
        fetcher._stopped.set()
        return fetched(59, 60), None

    consumer._wait_next_records = next_records
    before = consumer._n_seeks

    await consumer._drain_messages(fetcher)

    assert stream.offsets == [59, 60]
    assert consumer._n_seeks - before == 4  # the recovery's two marks, and ours
    assert consumer.sought == []  # old records are no sign of a hole


class Changelog:
    """A broker's changelog as the consumer's thread reads it: a fetch at a time, from a place."""

    def __init__(self, consumer: Any, n_records: int, per_fetch: int) -> None:
        self.n_records, self.per_fetch = n_records, per_fetch
        self.place = 0
        #: What happens while each fetch is on its way.
        self.meanwhile: list[Any] = []
        self.fetcher = Fetcher()
        consumer._wait_next_records = self.next_records
        consumer.seek_back = self.seek_back

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(*CHANGELOG)}

    async def position(self, partition: Any) -> int:
        return self.place

    def seek(self, partition: Any, offset: int) -> None:
        self.place = offset

    async def seek_back(self, offsets: dict[TP, int]) -> None:
        await module.seek_back(self, offsets)

    async def next_records(self, _: float) -> tuple[dict[TP, Any], None]:
        end = min(self.place + self.per_fetch, self.n_records)
        offsets, self.place = range(self.place, end), end
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        elif not offsets:
            self.fetcher._stopped.set()
        return (fetched(*offsets, tp=CHANGELOG) if offsets else {}), None


def restored_by(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what the recovery will have been given."""
    restored: list[int] = []

    async def restore(tp: TP, records: Any) -> None:
        restored.extend(record.offset for record in records)

    monkeypatch.setattr(consumer.app.tables.recovery, "restore", restore)
    return restored


async def test_of_a_changelog_nothing_is_missing_that_was_fetched_when_a_rebalance_came(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table with a hole would be taken for whole; waiting for the end, it would wait forever."""
    restored = restored_by(consumer, monkeypatch)
    committed_at(consumer, 59)
    changelog = Changelog(consumer, 9, per_fetch=3)

    async def nothing() -> None: ...

    async def rebalance() -> None:
        consumer.app.consumer_generation_id += 1

    async def pause() -> None:
        consumer.pause_partitions({CHANGELOG})

    async def resume() -> None:
        consumer.resume_partitions({CHANGELOG})

    changelog.meanwhile = [nothing, rebalance, pause, resume]
    await consumer._drain_messages(changelog.fetcher)
    assert restored == list(range(9))


async def test_a_standbys_changelog_is_not_left_out_when_the_sources_go_back(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored = restored_by(consumer, monkeypatch)
    committed_at(consumer, 59)
    changelog = Changelog(consumer, 4, per_fetch=4)
    changelog.meanwhile = [consumer.perform_seek]
    await consumer._drain_messages(changelog.fetcher)
    assert restored == list(range(4))


async def test_what_was_fetched_before_the_recovery_set_a_place_is_of_another(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby's records, fetched on, would hide what its owner is to read from the beginning."""
    restored = restored_by(consumer, monkeypatch)
    changelog = Changelog(consumer, 9, per_fetch=3)
    changelog.place = 6

    async def seek_wait(self: Any, partitions: dict[TP, int]) -> None:
        changelog.place = partitions[CHANGELOG]

    monkeypatch.setattr(driver.Consumer, "seek_wait", seek_wait)

    async def from_the_beginning() -> None:
        await EngineConsumer.seek_wait(consumer, {CHANGELOG: 0})

    changelog.meanwhile = [from_the_beginning]
    await consumer._drain_messages(changelog.fetcher)
    assert restored == list(range(9))


async def test_what_is_fetched_while_a_place_is_being_set_may_be_of_either(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored, begun = restored_by(consumer, monkeypatch), []

    async def seek_wait(self: Any, partitions: dict[TP, int]) -> None:
        begun.append(fetch_of(consumer))

    monkeypatch.setattr(driver.Consumer, "seek_wait", seek_wait)
    before = fetch_of(consumer)
    await EngineConsumer.seek_wait(consumer, {CHANGELOG: 0})
    for fetch in (before, *begun):
        await consumer._hand_over(fetched(5, tp=CHANGELOG), fetch)
    assert restored == []
    await hand_over(consumer, fetched(5, tp=CHANGELOG))
    assert restored == [5]


async def test_a_group_that_rebalances_is_waited_for(
    consumer: Any, stream: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FETCH_S", 0.01)
    committed_at(consumer, 59)
    fetcher, fetches = Fetcher(), 0

    async def next_records(_: float) -> tuple[dict[TP, Any], None]:
        nonlocal fetches
        fetches += 1
        if fetches == 1:
            raise IllegalStateError("not assigned")
        fetcher._stopped.set()
        return fetched(59), None

    consumer._wait_next_records = next_records

    await consumer._drain_messages(fetcher)

    assert stream.offsets == [59]


async def test_a_stream_that_is_slow_to_take_is_waited_for(consumer: Any, stream: Taking) -> None:
    stream.queue._maxsize = 2
    assert await hand_over(consumer, fetched(5, 6))
    handing = asyncio.create_task(hand_over(consumer, fetched(7)))
    await asyncio.sleep(0.01)
    assert not handing.done()
    assert stream.offsets == [5, 6]

    assert await handing
    assert stream.offsets == [5, 6, 7]


async def test_records_of_a_partition_that_is_paused_are_read_again(
    consumer: Any, stream: Taking
) -> None:
    consumer.pause_partitions({SOURCE, CHANGELOG})
    assert not await hand_over(consumer, fetched(5))
    # A changelog's place is for the recovery to set.
    assert await hand_over(consumer, fetched(5, tp=CHANGELOG))
    assert stream.offsets == []


async def test_a_changelogs_records_go_to_its_table_together(
    consumer: Any, stream: Taking, tmp_path: Path
) -> None:
    app = consumer.app
    table = add_table(app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    recovery = app.tables.recovery
    recovery.active_tps.add(CHANGELOG)
    recovery.tp_to_table[CHANGELOG] = table
    recovery.active_offsets[CHANGELOG], recovery.active_highwaters[CHANGELOG] = 4, 7
    recovery.signal_recovery_end.set()  # by the recovery before
    recovery._set_recovery_started()

    known = ConsumerRecord(*CHANGELOG, 4, 0, 0, b"known", b"v", None, 1, 1, ())
    assert await hand_over(consumer, {CHANGELOG: [known, record(5, CHANGELOG)]})
    assert recovery.active_offsets[CHANGELOG] == 5
    assert not recovery.signal_recovery_end.is_set()
    assert await hand_over(consumer, fetched(6, 7, tp=CHANGELOG))

    assert stream.offsets == []
    assert table.read(0, [b"k", b"known"]) == [b"v", None]
    assert table.persisted_offset(CHANGELOG) == 7
    assert recovery.signal_recovery_end.is_set()
    assert not app.in_recovery


async def test_a_changelog_that_went_to_another_worker_is_not_read(
    consumer: Any, tmp_path: Path
) -> None:
    table = add_table(consumer.app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    assert await hand_over(consumer, fetched(3, tp=CHANGELOG))
    assert table.read(0, [b"k"]) == [None]


async def test_a_worker_does_not_read_back_what_it_writes_itself(
    consumer: Any, tmp_path: Path
) -> None:
    table = add_table(consumer.app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    recovery = consumer.app.tables.recovery
    recovery.active_tps.add(CHANGELOG)
    recovery.tp_to_table[CHANGELOG] = table
    recovery.active_offsets[CHANGELOG] = 2
    table.write(0, {b"k": b"written since"})
    tombstone = ConsumerRecord(*CHANGELOG, 3, 0, 0, b"k", None, None, 1, 1, ())
    assert await hand_over(consumer, {CHANGELOG: [tombstone]})
    assert table.read(0, [b"k"]) == [b"written since"]


@pytest.mark.parametrize("rebalancing", [True, False])
async def test_a_table_half_read_when_a_rebalance_comes_is_not_taken_over(
    consumer: Any, tmp_path: Path, rebalancing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = add_table(consumer.app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    recovery = consumer.app.tables.recovery
    recovery.actives_for_table[table] = {CHANGELOG}
    taken_over: list[set[int]] = []

    async def ready(partitions: set[int]) -> bool:
        taken_over.append(partitions)
        return True

    table.on_partitions_ready = ready
    # Ends Faust's part after the tables.
    monkeypatch.setattr(consumer, "assignment", set)
    consumer.app.consumer_generation_id = 5
    if rebalancing:
        recovery.signal_recovery_start.set()
    await recovery.on_recovery_completed(4)
    assert taken_over == ([] if rebalancing else [{0}])


async def test_events_of_partitions_that_are_taken_away_again_do_not_flow(
    consumer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = add_table(consumer.app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    recovery = consumer.app.tables.recovery
    recovery.actives_for_table[table] = {CHANGELOG}
    resumed: list[Any] = []
    monkeypatch.setattr(consumer, "resume_partitions", resumed.append)
    monkeypatch.setattr(consumer, "assignment", set)

    async def ready(partitions: set[int]) -> bool:
        return False

    table.on_partitions_ready = ready
    await recovery.on_recovery_completed(consumer.app.consumer_generation_id)
    assert resumed == []


async def test_taking_over_goes_on_when_a_rebalance_ends_the_recovery(
    consumer: Any, tmp_path: Path
) -> None:
    """What waits for it is the letting go of its partitions."""
    table = add_table(consumer.app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    recovery = consumer.app.tables.recovery
    recovery.actives_for_table[table] = {CHANGELOG}
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def ready(partitions: set[int]) -> bool:
        begun.set()
        await go_on.wait()
        ended.set()
        return False

    table.on_partitions_ready = ready
    completing = asyncio.ensure_future(recovery.on_recovery_completed(0))
    await begun.wait()
    completing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await completing
    go_on.set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_the_lease_is_told_of_what_is_assigned_and_taken_away(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = consumer.app
    monkeypatch.setattr(consumer, "assignment", set)
    lease, tables = app.lease, app.tables
    assert not lease.may_take_over(lease.term)
    await tables.on_rebalance({CHANGELOG}, set(), {CHANGELOG}, 0)
    assert lease.may_take_over(lease.term)
    tables.on_partitions_revoked({CHANGELOG})
    assert not lease.may_take_over(lease.term)


async def test_a_table_that_does_not_take_its_changelog_takes_the_app_down(
    consumer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = add_table(consumer.app, load_settings(state_dir=tmp_path), CHANGELOG.topic)
    recovery = consumer.app.tables.recovery
    recovery.active_tps.add(CHANGELOG)
    recovery.tp_to_table[CHANGELOG] = table
    recovery.active_offsets[CHANGELOG] = -1
    recovery._set_recovery_started()
    crashed: list[BaseException] = []

    async def crash(error: BaseException) -> None:
        crashed.append(error)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(consumer.app, "crash", crash)
    monkeypatch.setattr(table.data, "write", full)
    with pytest.raises(OSError, match="no space"):
        await hand_over(consumer, fetched(3, tp=CHANGELOG))
    assert [str(error) for error in crashed] == ["no space left"]
    assert recovery.active_offsets[CHANGELOG] == -1


class BrokersConsumer:
    """What is asked of an AIOKafkaConsumer."""

    def __init__(self, committed: dict[TopicPartition, int | None]) -> None:
        self._committed = committed
        self.at: dict[TopicPartition, int | str] = {}

    def assignment(self) -> set[TopicPartition]:
        return set(self._committed)

    async def committed(self, tp: TopicPartition) -> int | None:
        return self._committed[tp]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def seek_to_beginning(self, tp: TopicPartition) -> None:
        self.at[tp] = "beginning"


async def test_going_back_leaves_changelogs_alone_and_no_source_where_it_is() -> None:
    read, unread, log = (TopicPartition(t, 0) for t in ("clickstream", "users", "user-state"))
    broker = BrokersConsumer({read: 7, unread: None, log: None})

    committed = await CommittedPositions(broker, lambda topic: topic != "user-state").seek()

    assert committed == {TP("clickstream", 0): 7, TP("users", 0): 0}
    assert broker.at == {read: 7, unread: "beginning"}
