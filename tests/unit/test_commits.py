from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes import Killed, Outbox
from faust.types import TP

from stream.delivery import Output
from stream.engine import commits
from stream.engine.app import add_table, new_app
from stream.engine.commits import CommitFailed, Committer, Effect, PartitionCommit
from stream.engine.lease import Lease
from stream.engine.stores import stamp, unstamp
from stream.engine.table import PartitionTable, StoreFailed
from stream.settings import load_settings
from stream.spaces import OtherEncoder

CHANGELOG = "user-state"
#: Apache Kafka's default limit of a message.
KAFKA_BYTES = 1_000_000


class Impatient(Committer):
    """A Committer that does not wait between two attempts."""

    async def _sleep(self, seconds: float) -> None:
        self._on_retry()
        await asyncio.sleep(0)


class Worker:
    """One process: what it has stored locally, and what it sends."""

    def __init__(
        self, folder: Path, outbox: Outbox, store: str = "memory", space: str = ""
    ) -> None:
        settings = load_settings(store=store, state_dir=folder)
        self.table: PartitionTable = add_table(new_app(settings, "preference"), settings, CHANGELOG)
        self.outbox, self.space = outbox, space
        self.n_retries = 0
        self.committer = self.start()

    def start(self) -> Committer:
        """Return the committer of a process that begins on this store."""

        def retried() -> None:
            self.n_retries += 1

        self.committer = Impatient(self.table, self.outbox, CHANGELOG, retried, space=self.space)
        return self.committer

    def restore(self) -> None:
        """Replay the changelog, as Faust does before a partition is taken over."""
        records = [
            SimpleNamespace(
                message=SimpleNamespace(
                    key=output.key,
                    value=output.value,
                    offset=offset,
                    topic=CHANGELOG,
                    partition=output.partition,
                    tp=TP(CHANGELOG, output.partition or 0),
                )
            )
            for offset, output in enumerate(self.outbox.sent)
            if output.topic == CHANGELOG
        ]
        store: Any = self.table.data
        store.apply_changelog_batch(records, lambda key: key, lambda value: value)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def worker(tmp_path: Path, outbox: Outbox) -> Worker:
    return Worker(tmp_path, outbox)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(commits, "CHUNK_BYTES", 500)
    return None


def effect(name: str, value: bytes = b"v") -> Effect:
    return Effect(name, "out", name.encode(), value)


def commit(*effects: Effect, partition: int = 0, **rows: bytes | None) -> PartitionCommit:
    stored = {key.encode(): row for key, row in rows.items()}
    return PartitionCommit(partition, stored, list(effects), {"in": 7}, stream_time_ms=1000)


def out(outbox: Outbox) -> list[str]:
    return [(output.key or b"").decode() for output in outbox.of("out")]


def is_ledger(output: Output) -> bool:
    return (output.key or b"").startswith(commits.LEDGER_KEY)


# --- one commit ----------------------------------------------------------------------------------


async def test_the_changelog_comes_before_the_outputs_and_the_ledger_before_the_rows(
    worker: Worker, outbox: Outbox
) -> None:
    await worker.committer.hold({0})
    await worker.committer.commit([commit(effect("o1"), effect("o2"), u1=b"row", u2=b"row")])
    topics = [output.topic for output in outbox.sent]
    assert topics == sorted(topics, key=[CHANGELOG, "out"].index)
    ledger = [is_ledger(output) for output in outbox.of(CHANGELOG)]
    assert ledger == sorted(ledger, reverse=True)
    assert ledger.count(False) == 2


async def test_every_record_of_the_changelog_goes_to_the_partition_of_its_rows(
    worker: Worker, outbox: Outbox
) -> None:
    await worker.committer.hold({1, 3})
    both = [commit(effect("o1"), partition=1, u1=b"1"), commit(partition=3, u3=b"3")]
    await worker.committer.commit(both)
    of_rows = {output.key: output.partition for output in outbox.of(CHANGELOG)}
    assert (of_rows[b"u1"], of_rows[b"u3"]) == (1, 3)
    assert {output.partition for output in outbox.of(CHANGELOG) if is_ledger(output)} == {1, 3}


async def test_a_deleted_row_leaves_the_store_and_a_tombstone(
    worker: Worker, outbox: Outbox
) -> None:
    await worker.committer.hold({0})
    await worker.committer.commit([commit(u1=b"row")])
    await worker.committer.commit([commit(u1=None)])
    assert worker.table.rows(0, [b"u1"]) == [None]
    assert [o.value for o in outbox.of(CHANGELOG) if o.key == b"u1"][-1] is None


async def test_sequences_grow_with_every_commit_and_go_on_after_a_restart(worker: Worker) -> None:
    await worker.committer.hold({0})
    seen = []
    for _ in range(3):
        seen.append(worker.committer.next_sequence(0))
        await worker.committer.commit([commit(u1=b"row")])
    await worker.start().hold({0})
    assert [*seen, worker.committer.next_sequence(0)] == [1, 2, 3, 4]


async def test_what_is_covered_only_grows_and_is_known_after_a_restart(worker: Worker) -> None:
    await worker.committer.hold({0})
    assert worker.committer.through(0, "in") == -1
    await worker.committer.commit([commit(u1=b"row")])
    await worker.committer.commit([PartitionCommit(0, through={"other": 3}, stream_time_ms=400)])
    for committer in (worker.committer, worker.start()):
        await committer.hold({0})
        assert (committer.through(0, "in"), committer.through(0, "other")) == (7, 3)
        assert committer.stream_time_ms(0) == 1000


async def test_events_read_again_in_smaller_batches_stay_covered(worker: Worker) -> None:
    await worker.committer.hold({0})
    await worker.committer.commit([PartitionCommit(0, through={"in": 9})])
    await worker.committer.commit([PartitionCommit(0, through={"in": 4})])
    assert worker.committer.through(0, "in") == 9


async def test_nothing_to_commit_sends_nothing(worker: Worker, outbox: Outbox) -> None:
    await worker.committer.commit([])
    assert outbox.sent == []


# --- a broker that fails -------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 2, 5])
async def test_a_failed_delivery_is_tried_until_everything_has_arrived(
    worker: Worker, outbox: Outbox, failures: int
) -> None:
    await worker.committer.hold({0})
    outbox.failures = failures
    await worker.committer.commit([commit(effect("o1"), effect("o2"), u1=b"row", u2=b"row")])
    assert worker.n_retries == failures
    assert {"o1", "o2"} == set(out(outbox))
    assert {b"u1", b"u2"} <= {output.key for output in outbox.of(CHANGELOG)}


async def test_no_output_is_sent_while_the_changelog_has_not_arrived(
    worker: Worker, outbox: Outbox
) -> None:
    await worker.committer.hold({0})
    outbox.failures = 10**9
    task = asyncio.create_task(worker.committer.commit([commit(effect("o1"), u1=b"row")]))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not task.done()
    assert out(outbox) == []
    outbox.failures = 0
    await task
    assert out(outbox) == ["o1"]


async def test_another_failure_of_the_sender_is_no_fault_of_the_events(worker: Worker) -> None:
    class Broken(Outbox):
        async def send(self, outputs: Any) -> list[int]:
            raise ValueError("a bug of the driver")

    await worker.committer.hold({0})
    worker.committer._sender = Broken()
    # Part of it may have been sent: tried again, it might come as another commit.
    with pytest.raises(CommitFailed, match="a bug of the driver"):
        await worker.committer.commit([commit(effect("o1"), u1=b"row")])
    assert worker.table.rows(0, [b"u1"]) == [None]


# --- a process that ends -------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
async def test_a_commit_cut_off_anywhere_is_finished_by_the_next_start(
    tmp_path: Path, store: str
) -> None:
    def done(*effects: Effect) -> PartitionCommit:
        return commit(*effects, u1=b"new", gone=None)

    n_records = 3 + 2 + 2  # ledger, rows, outputs
    for cut in range(n_records + 1):
        outbox = Outbox()
        worker = Worker(tmp_path / str(cut), outbox, store)
        await worker.committer.hold({0})
        first = PartitionCommit(0, {b"u1": b"old", b"gone": b"old"}, through={"in": 6})
        await worker.committer.commit([first])
        outbox.dies_after = cut
        whole = done(effect("o1"), effect("o2", b"second"))
        if cut < n_records:
            with pytest.raises(Killed):
                await worker.committer.commit([whole])
        else:
            await worker.committer.commit([whole])
        outbox.dies_after = None
        worker.restore()
        await worker.start().hold({0})
        # The event was not acknowledged, and comes again; a ledger that covers it has its outputs.
        is_covered = worker.committer.through(0, "in") == 7
        await worker.committer.commit([done() if is_covered else whole])
        assert [(o.key, o.value) for o in outbox.of("out")][-2:] == [
            (b"o1", b"v"),
            (b"o2", b"second"),
        ]
        fresh = Worker(tmp_path / f"{cut}-fresh", outbox)
        fresh.restore()
        for one in (worker, fresh):
            assert one.table.rows(0, [b"u1", b"gone"]) == [b"new", None]


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
async def test_the_store_holds_nothing_that_the_changelog_does_not(
    tmp_path: Path, store: str
) -> None:
    """Rows that were never sent would say that events are done which no other worker knows of."""
    outbox = Outbox()
    worker = Worker(tmp_path, outbox, store)
    await worker.committer.hold({0})
    await worker.committer.commit([commit(a=b"1")])
    for arrives in range(2):
        outbox.dies_after = arrives
        with pytest.raises(Killed):
            await worker.committer.commit([commit(a=b"2", b=b"2")])
        assert worker.table.rows(0, [b"a", b"b"]) == [b"1", None]
        assert worker.committer.next_sequence(0) == 2


async def test_rows_are_stored_before_the_outputs_are_sent(worker: Worker, outbox: Outbox) -> None:
    await worker.committer.hold({0})
    outbox.dies_after = 4  # ledger and row
    with pytest.raises(Killed):
        await worker.committer.commit([commit(effect("o1"), u1=b"row")])
    assert out(outbox) == []
    assert worker.table.rows(0, [b"u1"]) == [b"row"]
    outbox.dies_after = None
    await worker.start().hold({0})
    assert out(outbox) == ["o1"]


async def test_a_finished_commit_is_not_published_again(worker: Worker, outbox: Outbox) -> None:
    await worker.committer.hold({0})
    await worker.committer.commit([commit(effect("o1"), u1=b"row")])
    n_sent = len(outbox.sent)
    await worker.start().hold({0})
    assert len(outbox.sent) == n_sent
    assert worker.committer.was_sent(0, "o1")


@pytest.mark.parametrize("of", [commits.LEDGER_KEY, commits.LEDGER_KEY + b":000000"])
async def test_a_damaged_ledger_is_replaced_by_that_of_the_changelog(
    tmp_path: Path, outbox: Outbox, of: bytes
) -> None:
    worker = Worker(tmp_path, outbox, "rocksdb")
    await worker.committer.hold({0})
    await worker.committer.commit([commit(effect("o1"), u1=b"row")])
    worker.table.write(0, {of: stamp(1, b"\x94\xa1\xff"), commits.DELIVERED_KEY: None})
    with pytest.raises(StoreFailed, match="ledger of partition 0 is damaged"):
        await worker.start().hold({0})
    store: Any = worker.table.data
    store._dbs.clear()
    again = Worker(tmp_path, outbox, "rocksdb")
    assert again.table.read(0, [commits.LEDGER_KEY]) == [None]
    again.restore()
    await again.committer.hold({0})
    assert again.committer.next_sequence(0) == 2
    assert out(outbox) == ["o1", "o1"]


async def test_rows_of_another_space_are_refused_and_nothing_is_sent_of_them(
    outbox: Outbox, tmp_path: Path
) -> None:
    ours = Worker(tmp_path, outbox, space="old (8 dimensions)")
    await ours.committer.hold({0})
    await ours.committer.commit([commit(effect("o1"), u1=b"row")])
    n_sent = len(outbox.sent)
    other = Worker(tmp_path / "other", outbox, space="new (8 dimensions)")
    other.restore()
    told = r"^rows of user-state, partition 0: .* encoder new \(8 .*, got old \(8 dimensions\)"
    with pytest.raises(OtherEncoder, match=told):
        await other.committer.hold({0})
    assert len(outbox.sent) == n_sent
    ours.restore()
    await ours.start().hold({0})
    assert ours.committer.nameless({0}) == []


class EarlierLedger(msgspec.Struct, frozen=True, array_like=True):
    """What a ledger was before it named a space."""

    through: dict[str, int]
    n_key_chunks: int
    n_chunks: int
    stream_time_ms: int


async def test_rows_that_name_no_space_are_taken_over_and_named_by_the_next_commit(
    outbox: Outbox, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, outbox, space="ours")
    earlier = msgspec.msgpack.encode(EarlierLedger({"in": 7}, 0, 0, 5))
    worker.table.write(0, {commits.LEDGER_KEY: stamp(3, earlier)})
    await worker.committer.hold({0, 1})
    assert worker.committer.nameless({0, 1}) == [0]
    await worker.committer.commit([PartitionCommit(0)])
    assert worker.committer.nameless({0, 1}) == []
    await worker.start().hold({0})
    assert worker.committer.nameless({0}) == []
    assert worker.committer.through(0, "in") == 7
    # An earlier program reads it as well.
    [written] = worker.table.read(0, [commits.LEDGER_KEY])
    assert written
    read = msgspec.msgpack.decode(unstamp(written)[1], type=EarlierLedger)
    assert (read.through, read.stream_time_ms) == ({"in": 7}, 5)


async def test_a_smaller_commit_leaves_nothing_of_a_larger_one_behind(
    worker: Worker, outbox: Outbox, small_chunks: None
) -> None:
    await worker.committer.hold({0})
    many = [effect(f"o{number}", b"of u-old" * 20) for number in range(9)]
    await worker.committer.commit(
        [commit(*many, **{f"u-old-{number:040d}": b"row" for number in range(40)})]
    )
    # As an earlier version left one of a commit that was larger still.
    n_chunks = len([o for o in outbox.of(CHANGELOG) if b"ledger:" in (o.key or b"")])
    stale = commits.LEDGER_KEY + b":%06d" % n_chunks
    worker.table.write(0, {stale: stamp(1, b"of u-older")})
    await worker.start().hold({0})
    await worker.committer.commit([commit(effect("o"), u1=b"row")])
    newest = {output.key: output.value for output in outbox.of(CHANGELOG) if is_ledger(output)}
    assert newest[stale] is None
    assert not [key for key, value in newest.items() if b"u-old" in (value or b"")]
    assert worker.table.read(0, [*newest]) == [*newest.values()]
    await worker.start().hold({0})
    assert out(outbox)[-1] == "o"


async def test_a_ledger_of_any_number_of_records_takes_no_memory(worker: Worker) -> None:
    ledger = commits.Ledger({"in": 7}, 1 << 62, 1 << 62, 0)
    worker.table.write(0, {commits.LEDGER_KEY: stamp(3, msgspec.msgpack.encode(ledger))})
    await worker.start().hold({0})
    assert worker.committer.next_sequence(0) == 4


async def test_another_worker_publishes_the_same_bytes_again(
    worker: Worker, outbox: Outbox, tmp_path: Path
) -> None:
    await worker.committer.hold({0})
    await worker.committer.commit([commit(effect("o1", b"\x00bytes"), u1=b"row")])
    other = Worker(tmp_path / "other", outbox)
    other.restore()
    await other.committer.hold({0})
    assert [output.value for output in outbox.of("out")] == [b"\x00bytes"] * 2
    assert other.table.rows(0, [b"u1"]) == [b"row"]
    assert other.committer.next_sequence(0) == worker.committer.next_sequence(0)


async def test_an_effect_keeps_key_partition_and_headers(worker: Worker, outbox: Outbox) -> None:
    whole = Effect("id", "out", None, None, 3, (("a", b"1"), ("a", b"2")))
    await worker.committer.hold({0})
    outbox.dies_after = 2
    with pytest.raises(Killed):
        await worker.committer.commit([commit(whole)])
    outbox.dies_after = None
    await worker.start().hold({0})
    assert outbox.of("out") == [Output("out", None, None, 3, (("a", b"1"), ("a", b"2")))]


async def test_hold_keeps_what_is_held_and_lets_go_of_the_rest(
    worker: Worker, outbox: Outbox
) -> None:
    await worker.committer.hold({0, 1})
    await worker.committer.commit([commit(u1=b"row")])
    await worker.committer.hold({0, 2})
    assert worker.committer.partitions == {0, 2}
    assert worker.committer.next_sequence(0) == 2


# --- partitions that are taken away while they are taken over -------------------------------------


class Group(Lease):
    """A lease as the group gives it; always heard of."""

    def __init__(self) -> None:
        super().__init__(10.0)
        self.assigned()

    def held(self) -> bool:
        return True


class Slow(Outbox):
    """What is sent arrives when the gate is opened, and ``begun`` tells that it is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def send(self, outputs: Any) -> Any:
        self.begun.set()
        await self.gate.wait()
        return await super().send(outputs)


async def taking_over(tmp_path: Path) -> tuple[Committer, Group, Slow]:
    """Return a committer with two partitions whose last commits are to be finished."""
    group, outbox = Group(), Slow()
    worker = Worker(tmp_path, outbox)
    await worker.committer.hold({0, 1})
    await worker.committer.commit([commit(effect("a"), a=b"1"), commit(partition=1, b=b"1")])
    outbox.sent.clear()
    other = Worker(tmp_path / "other", outbox)
    for partition in (0, 1):
        stored = worker.table.data.scan(partition, b"", 99)
        other.table.write(partition, {k: v for k, v in stored if k != commits.DELIVERED_KEY})
    outbox.begun.clear()
    outbox.gate.clear()
    return Impatient(other.table, outbox, CHANGELOG, lease=group), group, outbox


async def test_partitions_are_let_go_of_once_nothing_is_being_sent_for_them(
    tmp_path: Path,
) -> None:
    committer, group, outbox = await taking_over(tmp_path)
    holding = asyncio.ensure_future(committer.hold({0, 1}))
    await outbox.begun.wait()
    group.leaving()
    releasing = asyncio.ensure_future(committer.release({0, 1}))
    await asyncio.sleep(0.01)
    assert not releasing.done()
    outbox.gate.set()
    assert not await holding
    await releasing
    # Not the outputs of the first, and nothing of the second.
    assert {(output.topic, output.partition) for output in outbox.sent} == {(CHANGELOG, 0)}
    assert committer.partitions == set()


async def test_what_could_not_be_sent_for_partitions_that_are_gone_is_not_tried_again(
    tmp_path: Path,
) -> None:
    committer, group, outbox = await taking_over(tmp_path)
    outbox.failures = 1
    holding = asyncio.ensure_future(committer.hold({0, 1}))
    await outbox.begun.wait()
    group.leaving()
    outbox.gate.set()
    assert not await holding
    # What arrived of the one attempt, half of it.
    assert 0 < len(outbox.sent) == len({output.key for output in outbox.sent})


async def test_an_assignment_that_is_over_already_is_not_taken_over(tmp_path: Path) -> None:
    committer, group, outbox = await taking_over(tmp_path)
    outbox.gate.set()
    group.leaving()
    assert not await committer.hold({0, 1})
    assert outbox.sent == []
    assert not await committer.hold({2})  # of which there is nothing to finish
    assert committer.partitions == set()
    group.assigned()
    assert await committer.hold({0, 1})
    assert committer.partitions == {0, 1}


# --- large commits -------------------------------------------------------------------------------


async def test_large_outputs_are_spread_over_records_that_kafka_takes(
    worker: Worker, outbox: Outbox, tmp_path: Path
) -> None:
    effects = [effect(f"o{n}", bytes([n]) * 250_000) for n in range(9)]
    await worker.committer.hold({0})
    await worker.committer.commit([commit(*effects, u1=b"row")])
    assert max(len(output.value or b"") for output in outbox.of(CHANGELOG)) < KAFKA_BYTES
    other = Worker(tmp_path / "other", outbox)
    other.restore()
    await other.committer.hold({0})
    assert out(outbox) == [f"o{n}" for n in range(9)] * 2
    assert outbox.of("out")[:9] == outbox.of("out")[9:]


async def test_a_commit_of_very_many_rows_has_no_record_that_kafka_refuses(
    worker: Worker, outbox: Outbox
) -> None:
    rows: dict[bytes, bytes | None] = {b"%0200d" % n: b"row" for n in range(12_000)}
    await worker.committer.hold({0})
    await worker.committer.commit([PartitionCommit(0, rows)])
    worker.table.write(0, {commits.DELIVERED_KEY: None})
    outbox.sent.clear()
    await worker.start().hold({0})
    assert max(len(output.value or b"") for output in outbox.of(CHANGELOG)) < KAFKA_BYTES
    assert rows.keys() <= {output.key for output in outbox.of(CHANGELOG)}


@pytest.mark.usefixtures("small_chunks")
async def test_chunks_of_a_later_commit_that_was_cut_off_are_not_taken_for_the_last_ones(
    worker: Worker, outbox: Outbox, tmp_path: Path
) -> None:
    def large(name: str) -> list[Effect]:
        return [effect(f"{name}{n}", b"x" * 400) for n in range(4)]

    await worker.committer.hold({0})
    await worker.committer.commit([commit(*large("first"), u1=b"row")])
    outbox.dies_after = 2  # two of four chunks, no ledger
    with pytest.raises(Killed):
        await worker.committer.commit([commit(*large("second"), u1=b"never")])
    outbox.dies_after = None
    other = Worker(tmp_path / "other", outbox)
    other.restore()
    await other.committer.hold({0})
    assert not [name for name in out(outbox) if name.startswith("second")]
    assert other.table.rows(0, [b"u1"]) == [b"row"]
    assert other.committer.next_sequence(0) == 2
    await other.committer.commit([commit(*large("second"), u1=b"new")])
    assert [name for name in out(outbox) if name.startswith("second")] == [
        f"second{n}" for n in range(4)
    ]


# --- a worker whose session has run out ----------------------------------------------------------


class Answers(Lease):
    """A lease that is confirmed as long as the answers say so."""

    def __init__(self, answers: list[bool]) -> None:
        super().__init__(10.0)
        self._answers = answers
        self.assigned()

    async def confirmed(self, term: int, taking_over: bool = False) -> bool:
        return self._answers.pop(0)


def owned_by(worker: Worker, answers: list[bool]) -> Committer:
    """Return a committer that owns its partitions as long as ``answers`` say so."""
    return Impatient(worker.table, worker.outbox, CHANGELOG, lease=Answers(answers))


async def test_a_worker_that_is_no_owner_stores_nothing_and_sends_nothing(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Outbox())
    committer = owned_by(worker, [False])
    await committer.hold({0})
    with pytest.raises(CommitFailed, match="session"):
        await committer.commit([PartitionCommit(0, rows={b"anna": b"row"})])
    assert worker.table.rows(0, [b"anna"]) == [None]
    assert worker.outbox.sent == []


async def test_nothing_is_committed_behind_what_the_worker_failed_at(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Outbox(), store="rocksdb")
    committer = owned_by(worker, [True] * 3)
    await committer.hold({0})
    await committer.commit([PartitionCommit(0, rows={b"anna": b"row"}, through={"searches": 1})])
    n_sent = len(worker.outbox.sent)
    committer._lease.given_up = True
    with pytest.raises(CommitFailed, match="about to end"):
        await committer.commit([PartitionCommit(0, rows={b"ben": b"row"}, through={"searches": 9})])
    assert len(worker.outbox.sent) == n_sent
    worker.table.data._dbs.clear()
    kept = Worker(tmp_path, Outbox(), store="rocksdb").table
    assert kept.rows(0, [b"anna", b"ben"]) == [b"row", None]


async def test_what_was_stored_before_the_session_ran_out_is_not_kept(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Outbox(), store="rocksdb")
    committer = owned_by(worker, [True, False])
    await committer.hold({0})
    with pytest.raises(CommitFailed, match="session"):
        await committer.commit([PartitionCommit(0, rows={b"anna": b"row"})])
    assert worker.outbox.sent == []
    worker.table.data._dbs.clear()
    assert Worker(tmp_path, Outbox(), store="rocksdb").table.rows(0, [b"anna"]) == [None]


async def test_outputs_are_held_back_when_the_session_runs_out_after_the_changelog(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, Outbox())
    committer = owned_by(worker, [True, True, False])
    await committer.hold({0})
    effect = Effect("id", "recommendations", b"anna", b"list")
    with pytest.raises(CommitFailed, match="session"):
        await committer.commit([PartitionCommit(0, rows={b"anna": b"row"}, effects=[effect])])
    assert {output.topic for output in worker.outbox.sent} == {CHANGELOG}
