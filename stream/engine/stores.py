"""Local stores of a partitioned table: whole micro-batches in and out, by partition.

Faust's own stores find the partition of a key through the event being processed, which a
micro-batch of several partitions does not have; here the caller names it.

Every value begins with the sequence number of the commit that wrote it (8 bytes, big endian).
When a changelog is replayed over a store that is ahead of it, the newer value stays.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import rocksdict
from faust.stores import memory, rocksdb
from faust.types import TP, EventT

log = logging.getLogger(__name__)

Rows = dict[bytes, bytes | None]

SEQUENCE_BYTES = 8
#: A clock that is kept right goes back by less than this.
CLOCK_STEP_S = 60


def stamp(sequence: int, value: bytes) -> bytes:
    """Return a stored value: the sequence number, then the value."""
    return sequence.to_bytes(SEQUENCE_BYTES, "big") + value


def unstamp(stored: bytes) -> tuple[int, bytes]:
    """Return the sequence number and the value of a stored value."""
    return int.from_bytes(stored[:SEQUENCE_BYTES], "big"), stored[SEQUENCE_BYTES:]


class PartitionedStore(Protocol):
    """What a table needs of a store; values are stamped."""

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def write(self, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Write all rows at once or none; None deletes."""

    def scan(self, partition: int, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` rows whose key is greater than ``after``, in key order."""

    def n_rows(self) -> int: ...

    def n_bytes(self) -> int: ...

    def set_persisted_offset(self, tp: TP, offset: int) -> None: ...

    def condemn(self, partition: int) -> None:
        """Have the partition built anew from the changelog when it is next opened."""


def newest(
    batch: Iterable[EventT[Any]], read: Callable[[int, Sequence[bytes]], list[bytes | None]]
) -> dict[int, Rows]:
    """Return the rows of a changelog batch that are not older than what ``read`` finds."""
    partitions: dict[int, list[Any]] = {}
    for event in batch:
        partitions.setdefault(event.message.partition, []).append(event.message)
    rows: dict[int, Rows] = {}
    for partition, messages in partitions.items():
        keys = list({message.key: None for message in messages})
        held = dict(zip(keys, read(partition, keys), strict=True))
        rows[partition] = _newest(messages, held)
    return rows


def _newest(messages: Iterable[Any], held: Mapping[bytes, bytes | None]) -> Rows:
    written: Rows = {}
    for message in messages:
        key, value = message.key, message.value
        if value is not None:
            known = written.get(key) or held[key]
            if known is not None and known[:SEQUENCE_BYTES] > value[:SEQUENCE_BYTES]:
                continue
        written[key] = value
    return written


class RocksDBStore(rocksdb.Store):
    """RocksDB, one database per partition.

    A database that was not written for longer than ``max_age_s`` is begun anew: the changelog's
    tombstones since then may have been compacted away, and who was erased meanwhile would be back.
    So is one that was written in the future: the clock was set back, and its age is not known.
    """

    #: Faust's own is valid UTF-8: a user of that name would overwrite the offset, and be lost.
    offset_key = b"\xffoffset"
    written_key = b"\xffwritten"
    max_age_s = math.inf
    #: Seconds of the wall clock: the age counts while no process runs, too.
    clock_s: Callable[[], float] = staticmethod(lambda: time.time_ns() / 1e9)

    def _open_for_partition(self, partition: int) -> Any:
        """Open a partition's database; a damaged one is begun anew, and filled by the changelog.

        Kept as it is, it would end every worker that starts on it.
        """
        path: Path = self.partition_path(partition)
        condemned = _condemned(path)
        if condemned.exists():
            log.warning("%s is rebuilt from the changelog: what it holds is of no use", path)
            shutil.rmtree(path, ignore_errors=True)
            condemned.unlink()
        try:
            opened = super()._open_for_partition(partition)
        except Exception as error:
            if not _is_damage(error):
                raise
            log.error("%s is damaged and rebuilt from the changelog: %s", path, error)
        else:
            if not self._is_stale(opened):
                return opened
            log.warning("%s is too old and rebuilt from the changelog", path)
            opened.close()
        shutil.rmtree(path)
        return super()._open_for_partition(partition)

    def _is_stale(self, opened: Any) -> bool:
        if opened.get(self.offset_key) is None:
            return False
        # Kept in the database: a file's time is that of a copy.
        written_s = float(opened.get(self.written_key) or 0)
        return not -CLOCK_STEP_S <= self.clock_s() - written_s <= self.max_age_s

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(self.offset_key, b"%d" % offset)
        batch.put(self.written_key, b"%d" % self.clock_s())
        self._db_for_partition(tp.partition).write(batch)

    @contextmanager
    def _noting_damage(self, partition: int) -> Iterator[None]:
        """Condemn a database in which damage is met only now: the next start rebuilds it."""
        try:
            yield
        except Exception as error:
            if _is_damage(error):
                self.condemn(partition)
            raise

    def condemn(self, partition: int) -> None:
        _condemned(self.partition_path(partition)).touch()

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._noting_damage(partition):
            return list(self._db_for_partition(partition).get(list(keys)))

    def write(self, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        with self._noting_damage(partition):
            self._db_for_partition(partition).write(batch)

    def scan(self, partition: int, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        # The smallest key that is greater than ``after``.
        items = self._db_for_partition(partition).items(from_key=after + b"\x00")
        own = (self.offset_key, self.written_key)
        rows: Iterator[tuple[bytes, bytes]] = (row for row in items if row[0] not in own)
        return list(islice(rows, limit))

    def n_rows(self) -> int:
        return self._sum("rocksdb.estimate-num-keys")

    def n_bytes(self) -> int:
        on_disk = self._sum("rocksdb.total-sst-files-size")
        return on_disk + self._sum("rocksdb.cur-size-all-mem-tables")

    def _sum(self, name: str) -> int:
        return sum(int(db.property_int_value(name) or 0) for db in self._dbs.values())

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: Callable[[Any], Any],
        to_value: Callable[[Any], Any],
    ) -> None:
        events = list(batch)
        for partition, rows in newest(events, self.read).items():
            self.write(partition, rows)
        offsets: dict[TP, int] = {}
        for event in events:
            tp = TP(event.message.topic, event.message.partition)
            offsets[tp] = max(event.message.offset, offsets.get(tp, -1))
        for tp, offset in offsets.items():
            self.set_persisted_offset(tp, offset)


def _condemned(path: Path) -> Path:
    return path.with_suffix(".condemned")


def _is_damage(error: Exception) -> bool:
    """True when files of a database are spoilt or gone; a full disk or a lock is no damage."""
    # RocksDB's bindings raise a plain Exception for everything; the status begins its text.
    text = str(error)
    return text.startswith("Corruption") or "No such file or directory" in text


class MemoryStore(memory.Store[Any, Any]):
    """Dictionaries, one per partition; restored from the changelog at every start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._sorted: dict[int, list[bytes]] = {}
        self._n_bytes: dict[int, int] = {}

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self._rows.get(partition, {})
        return [rows.get(key) for key in keys]

    def write(self, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        held = self._rows.setdefault(partition, {})
        grown = 0
        for key, value in rows.items():
            old = held.pop(key, None)
            grown -= 0 if old is None else len(key) + len(old)
            if value is not None:
                held[key] = value
                grown += len(key) + len(value)
        self._n_bytes[partition] = self._n_bytes.get(partition, 0) + grown

    def scan(self, partition: int, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        held = self._rows.get(partition, {})
        keys = self._keys_of_walk(partition, after, held)
        # Keys of the walk's start; those deleted since are passed over.
        found = ((key, held[key]) for key in _greater(keys, after) if key in held)
        return list(islice(found, limit))

    def _keys_of_walk(
        self, partition: int, after: bytes, held: Mapping[bytes, bytes]
    ) -> list[bytes]:
        # Sorting every time would cost a full pass a slice: once per walk is enough, since a
        # key that comes meanwhile is met by the next walk.
        if not after or partition not in self._sorted:
            self._sorted[partition] = sorted(held)
        return self._sorted[partition]

    def n_rows(self) -> int:
        return sum(map(len, self._rows.values()))

    def n_bytes(self) -> int:
        return sum(self._n_bytes.values())

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Nothing outlives the process, so nothing is remembered."""

    def condemn(self, partition: int) -> None:
        """Nothing outlives the process, so nothing is left to be built anew."""

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: Callable[[Any], Any],
        to_value: Callable[[Any], Any],
    ) -> None:
        for partition, rows in newest(batch, self.read).items():
            self.write(partition, rows)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Drop the partitions that went to another worker: they are read anew if they return."""
        kept = {tp.partition for tp in active_tps | standby_tps}
        for partition in set(self._rows) - kept:
            del self._rows[partition]
            self._sorted.pop(partition, None)
            self._n_bytes.pop(partition, None)


def _greater(keys: list[bytes], after: bytes) -> Iterator[bytes]:
    return islice(keys, bisect_right(keys, after), None)
