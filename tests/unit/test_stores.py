from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from faust.types import TP

from stream.engine.app import add_table, new_app
from stream.engine.stores import CLOCK_STEP_S, RocksDBStore, newest, stamp, unstamp
from stream.engine.table import CONTROL, PartitionTable, StoreFailed
from stream.settings import load_settings


def new_table(store: str, folder: Path) -> PartitionTable:
    settings = load_settings(store=store, state_dir=folder)
    return add_table(new_app(settings, "preference"), settings, "user-state")


@pytest.fixture(params=["memory", "rocksdb"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> PartitionTable:
    return new_table(request.param, tmp_path)


def record(key: bytes, value: bytes | None, offset: int = 0, partition: int = 0) -> Any:
    message = ConsumerRecord("user-state", partition, offset, 0, 0, key, value, None, 1, 1, ())
    return SimpleNamespace(message=message)


def replay(table: PartitionTable, *records: Any) -> None:
    """What Faust does with the records of a changelog."""
    table.data.apply_changelog_batch(records, lambda key: key, lambda value: value)


def keys(found: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [key for key, _ in found]


# --- both stores ---------------------------------------------------------------------------------


def test_what_was_written_is_read_in_the_order_of_the_keys_asked_for(table: PartitionTable) -> None:
    table.write(0, {b"b": stamp(1, b"B"), b"a": stamp(1, b"A")})
    assert table.rows(0, [b"a", b"none", b"b", b"a"]) == [b"A", None, b"B", b"A"]


def test_an_empty_row_is_a_row(table: PartitionTable) -> None:
    table.write(0, {b"a": stamp(1, b"")})
    assert table.rows(0, [b"a"]) == [b""]


def test_a_partition_does_not_see_the_rows_of_another(table: PartitionTable) -> None:
    table.write(0, {b"a": stamp(1, b"A")})
    assert table.rows(1, [b"a"]) == [None]
    assert table.scan(1, b"", 10) == []


def test_a_later_write_replaces_and_none_deletes(table: PartitionTable) -> None:
    table.write(0, {b"a": stamp(1, b"A"), b"b": stamp(1, b"B")})
    table.write(0, {b"a": stamp(2, b"newer"), b"b": None, b"never there": None})
    assert table.rows(0, [b"a", b"b"]) == [b"newer", None]
    assert table.scan(0, b"", 10) == [(b"a", b"newer")]


def test_a_scan_is_in_key_order_and_resumes_behind_a_key(table: PartitionTable) -> None:
    ids = [b"u10", b"u1", b"u\x00", "ü".encode(), b"u2", b"u1\x00"]
    table.write(0, {key: stamp(1, key) for key in ids})
    met, after = [], b""
    while rows := table.scan(0, after, 2):
        assert len(rows) <= 2
        met += keys(rows)
        after = rows[-1][0]
    assert met == sorted(ids)


def test_a_scan_goes_on_when_the_row_it_stopped_at_is_gone(table: PartitionTable) -> None:
    table.write(0, {key: stamp(1, b"") for key in (b"a", b"b", b"c", b"d")})
    assert keys(table.scan(0, b"", 2)) == [b"a", b"b"]
    table.write(0, {b"b": None, b"c": None})
    assert keys(table.scan(0, b"b", 2)) == [b"d"]


def test_the_next_walk_meets_what_came_during_the_last_one(table: PartitionTable) -> None:
    table.write(0, {b"a": stamp(1, b""), b"c": stamp(1, b"")})
    table.scan(0, b"", 1)
    table.write(0, {b"b": stamp(2, b"")})
    assert keys(table.scan(0, b"", 9)) == [b"a", b"b", b"c"]


def test_the_engines_own_rows_are_no_users(table: PartitionTable) -> None:
    table.write(0, {b"u1": stamp(1, b"row"), CONTROL + b"ledger": stamp(1, b"x")})
    table.delivered(0, 17)
    assert table.scan(0, b"", 10) == [(b"u1", b"row")]


def test_no_user_id_is_taken_for_the_place_of_the_persisted_offset(table: PartitionTable) -> None:
    faust_own = b"__faust\0offset__"  # valid UTF-8, so a client may call a user this
    table.write(0, {faust_own: stamp(1, b"row")})
    table.delivered(0, 17)
    assert table.rows(0, [faust_own]) == [b"row"]
    assert keys(table.scan(0, b"", 10)) == [faust_own]


def test_the_number_of_rows_and_bytes_grows_and_shrinks(table: PartitionTable) -> None:
    table.write(0, {b"u%d" % i: stamp(1, b"x" * 100) for i in range(50)})
    table.write(1, {b"v": stamp(1, b"x")})
    assert table.n_rows() == 51
    assert table.n_bytes() >= 50 * 100


def test_bytes_in_memory_are_those_of_the_rows_that_are_left(tmp_path: Path) -> None:
    table = new_table("memory", tmp_path)
    table.write(0, {b"a": stamp(1, b"row"), b"bb": stamp(1, b"another"), b"none": None})
    table.write(1, {b"c": stamp(1, b"")})
    table.write(0, {b"a": stamp(2, b"longer row"), b"bb": None})
    assert table.n_bytes() == len(b"a" + stamp(2, b"longer row") + b"c" + stamp(1, b""))


def test_a_replayed_changelog_does_not_take_a_newer_row_back(table: PartitionTable) -> None:
    table.write(0, {b"a": stamp(5, b"newer"), b"b": stamp(3, b"older")})
    replay(
        table,
        record(b"a", stamp(4, b"of the changelog"), 0),
        record(b"b", stamp(4, b"of the changelog"), 1),
        record(b"c", stamp(4, b"of the changelog"), 2, partition=1),
    )
    assert table.rows(0, [b"a", b"b"]) == [b"newer", b"of the changelog"]
    assert table.rows(1, [b"c"]) == [b"of the changelog"]


def test_a_replay_ends_at_the_last_record_of_each_key(table: PartitionTable) -> None:
    table.write(0, {b"a": stamp(1, b"1"), b"b": stamp(1, b"1")})
    replay(
        table,
        record(b"a", stamp(2, b"2"), 0),
        record(b"a", None, 1),
        record(b"a", stamp(4, b"4"), 2),
        record(b"b", stamp(4, b"4"), 3),
        record(b"b", None, 4),
    )
    assert table.rows(0, [b"a", b"b"]) == [b"4", None]


def test_two_records_of_one_commit_end_with_the_later(table: PartitionTable) -> None:
    replay(table, record(b"a", stamp(2, b"first"), 0), record(b"a", stamp(2, b"again"), 1))
    assert table.rows(0, [b"a"]) == [b"again"]


def test_within_one_batch_of_the_changelog_the_newer_stamp_wins() -> None:
    batch = [record(b"a", stamp(7, b"new"), 0), record(b"a", stamp(6, b"old"), 1)]
    assert newest(batch, lambda _, asked: [None] * len(asked)) == {0: {b"a": stamp(7, b"new")}}


def test_a_stamp_is_read_back_and_orders_as_bytes() -> None:
    assert unstamp(stamp(300, b"row")) == (300, b"row")
    assert stamp(255, b"z") < stamp(256, b"a")


# --- RocksDB -------------------------------------------------------------------------------------


def test_rocksdb_keeps_rows_and_the_place_in_the_changelog(tmp_path: Path) -> None:
    first = new_table("rocksdb", tmp_path)
    first.write(2, {b"a": stamp(3, b"A")})
    first.delivered(2, 41)
    for db in first.data._dbs.values():
        db.close()
    second = new_table("rocksdb", tmp_path)
    assert second.rows(2, [b"a"]) == [b"A"]
    assert second.persisted_offset(TP("user-state", 2)) == 41


def test_rocksdb_goes_on_behind_the_records_it_has_replayed(tmp_path: Path) -> None:
    table = new_table("rocksdb", tmp_path)
    replay(table, record(b"a", stamp(1, b"A"), 7), record(b"b", stamp(1, b"B"), 6))
    assert table.persisted_offset(TP("user-state", 0)) == 7


def test_a_store_that_cannot_be_read_is_no_fault_of_an_event(tmp_path: Path) -> None:
    table = new_table("rocksdb", tmp_path)
    table.data.partition_path(3).write_bytes(b"a file where RocksDB wants a folder")
    with pytest.raises(StoreFailed, match="table user-state"):
        table.read(3, [b"a"])


# --- memory --------------------------------------------------------------------------------------


async def test_memory_forgets_the_partitions_that_went_to_another_worker(tmp_path: Path) -> None:
    table = new_table("memory", tmp_path)
    for partition in range(3):
        table.write(partition, {b"a": stamp(1, b"A")})
        table.scan(partition, b"", 1)
    changelog = {TP("user-state", 0)}, {TP("user-state", 2)}
    await table.data.on_recovery_completed(*changelog)
    assert [table.rows(n, [b"a"])[0] for n in range(3)] == [b"A", None, b"A"]
    assert table.n_rows() == 2
    assert table.scan(1, b"", 9) == []


def test_memory_remembers_no_offset_since_it_restores_everything(tmp_path: Path) -> None:
    table = new_table("memory", tmp_path)
    table.delivered(0, 41)
    assert table.persisted_offset(TP("user-state", 0)) is None


def test_both_stores_are_ours(tmp_path: Path) -> None:
    assert isinstance(new_table("rocksdb", tmp_path).data, RocksDBStore)


# --- damage ---------------------------------------------------------------------------------------


def flip(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        raw = path.read_bytes()
        path.write_bytes(bytes(byte ^ 0xFF for byte in raw))


@pytest.mark.parametrize("pattern", ["MANIFEST*", "CURRENT"])
def test_a_damaged_database_is_begun_anew_and_asks_for_the_whole_changelog(
    tmp_path: Path, pattern: str
) -> None:
    table = new_table("rocksdb", tmp_path)
    table.write(0, {b"a": stamp(1, b"A")})
    table.delivered(0, 7)
    table.data._dbs.clear()
    flip(tmp_path, pattern)
    table = new_table("rocksdb", tmp_path)
    assert table.rows(0, [b"a"]) == [None]
    assert table.data.persisted_offset(TP("user-state", 0)) is None


def test_damage_that_is_met_while_reading_condemns_the_database_for_the_next_start(
    tmp_path: Path,
) -> None:
    table = new_table("rocksdb", tmp_path)
    table.write(0, {b"%06d" % n: stamp(1, b"A" * 100) for n in range(5000)})
    db = table.data._db_for_partition(0)
    db.flush()
    table.delivered(0, 7)
    [path] = tmp_path.rglob("*.sst")
    raw = bytearray(path.read_bytes())
    raw[100:400] = bytes(300)
    path.write_bytes(raw)
    with pytest.raises(StoreFailed, match="Corruption"):
        table.rows(0, [b"%06d" % n for n in range(5000)])
    table.data._dbs.clear()
    del db
    again = new_table("rocksdb", tmp_path)
    assert again.rows(0, [b"000000"]) == [None]
    assert again.data.persisted_offset(TP("user-state", 0)) is None


def test_a_database_that_another_holds_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    holder = new_table("rocksdb", tmp_path)
    holder.write(0, {b"a": stamp(1, b"A")})
    holder.data._db_for_partition(0).flush()
    files = set(tmp_path.rglob("*.sst"))
    assert files
    with pytest.raises(StoreFailed, match=r"[Ll]ock"):
        new_table("rocksdb", tmp_path).rows(0, [b"a"])
    assert set(tmp_path.rglob("*.sst")) == files


# --- too old -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "kept"), [(99, True), (101, False), (-CLOCK_STEP_S, True), (-CLOCK_STEP_S - 1, False)]
)
def test_a_database_too_old_for_the_tombstones_or_of_the_future_is_begun_anew(
    tmp_path, age_s, kept
):
    table = new_table("rocksdb", tmp_path)
    table.data.max_age_s, table.data.clock_s = 100, lambda: 1000
    table.write(0, {b"erased since": stamp(1, b"A")})
    table.delivered(0, 7)
    table.data._dbs.pop(0).close()
    table.data.clock_s = lambda: 1000 + age_s
    assert (table.rows(0, [b"erased since"]) == [b"A"]) is kept
    assert table.persisted_offset(TP("user-state", 0)) == (7 if kept else None)
    assert keys(table.scan(0, b"", 10)) == ([b"erased since"] if kept else [])


def test_a_new_database_is_not_too_old(tmp_path):
    table = new_table("rocksdb", tmp_path)
    table.data.max_age_s = 0
    table.write(0, {b"a": stamp(1, b"A")})
    assert table.rows(0, [b"a"]) == [b"A"]


def test_the_table_s_store_takes_its_greatest_age_from_the_settings(tmp_path):
    settings = load_settings(store="rocksdb", state_dir=tmp_path, state_max_age_h=2)
    table = add_table(new_app(settings, "preference"), settings, "user-state")
    assert table.data.max_age_s == 7200
