"""PartitionTable: a Faust table read and written by partition, in whole micro-batches."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import faust
from faust.types import TP
from yarl import URL

from stream.engine.stores import MemoryStore, PartitionedStore, RocksDBStore, unstamp

#: Keys that begin with this byte are the engine's own; no UTF-8 text does, so no user id can.
CONTROL = b"\xff"

#: RocksDB holds a block cache per partition; Faust's default of 2 GiB each is no use here.
ROCKSDB_OPTIONS = {
    "block_cache_size": 32 * 1024**2,
    "write_buffer_size": 16 * 1024**2,
    "max_write_buffer_number": 2,
}


class StoreFailed(RuntimeError):
    """The local store cannot be read or written: no fault of any event."""


@contextmanager
def _store(table: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # RocksDB's bindings raise a plain Exception for everything
        raise StoreFailed(f"local store of table {table}: {error}") from error


async def _nothing(partitions: set[int]) -> bool:
    return True


class PartitionTable(faust.Table[bytes, bytes]):
    """A table whose changelog is a topic of ours, written by the Committer, not by Faust.

    Faust still assigns its partitions and restores them from the changelog.
    """

    #: Awaited with the partitions held after each assignment, before any event of theirs is read;
    #: False when they have been taken away again.
    on_partitions_ready: Callable[[set[int]], Awaitable[bool]] = staticmethod(_nothing)

    def __init__(self, *args: Any, store_max_age_s: float = math.inf, **kwargs: Any) -> None:
        """See RocksDBStore for ``store_max_age_s``."""
        self._store_max_age_s = store_max_age_s
        super().__init__(*args, **kwargs)
        self._held_at_assignment: dict[int, int] = {}

    def _new_store_by_url(self, url: str | URL) -> Any:
        store = {"rocksdb": RocksDBStore, "memory": MemoryStore}[URL(url).scheme]
        options = dict(ROCKSDB_OPTIONS) if store is RocksDBStore else None
        made = store(
            url,
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            key_serializer="raw",
            value_type=bytes,
            value_serializer="raw",
            options=options,
        )
        if isinstance(made, RocksDBStore):
            made.max_age_s = self._store_max_age_s
        return made

    @property
    def _partitions(self) -> PartitionedStore:
        return cast(PartitionedStore, self.data)

    def rows(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, without the stamp of its commit."""
        stored = self.read(partition, keys)
        return [None if value is None else unstamp(value)[1] for value in stored]

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the stored value of each key, stamp included, None where there is none."""
        with _store(self.name):
            return self._partitions.read(partition, keys)

    def write(self, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Write all rows to the local store, or none."""
        with _store(self.name):
            self._partitions.write(partition, rows)

    def scan(self, partition: int, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` rows behind key ``after``, in key order, control rows left out."""
        with _store(self.name):
            found = self._partitions.scan(partition, after, limit)
        return [(key, unstamp(value)[1]) for key, value in found if not key.startswith(CONTROL)]

    def n_rows(self) -> int:
        """Return how many rows the local store holds; an estimate for RocksDB."""
        with _store(self.name):
            return self._partitions.n_rows()

    def n_bytes(self) -> int:
        """Return the size of the local store's rows (on disk, for RocksDB)."""
        with _store(self.name):
            return self._partitions.n_bytes()

    def condemn(self, partition: int) -> None:
        """Have the local store of a partition built anew from the changelog at the next start."""
        self._partitions.condemn(partition)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return up to where the local store holds the changelog; asked when it is assigned."""
        offset: int | None = super().persisted_offset(tp)
        self._held_at_assignment[tp.partition] = -1 if offset is None else offset
        return offset

    def held_at_assignment(self, partition: int) -> int:
        """Return the changelog offset that the local store held before recovery, -1 for none."""
        return self._held_at_assignment.get(partition, -1)

    def delivered(self, partition: int, changelog_offset: int) -> None:
        """Remember that the local store holds the changelog up to this offset."""
        tp = TP(self.changelog_topic_name, partition)
        self._partitions.set_persisted_offset(tp, changelog_offset)

    async def take_over(self, tps: set[TP]) -> bool:
        """Have the partitions taken over that have been restored; False when they are gone again.

        What is wrong with them ends the app, not to go on with a table that nobody has taken over.
        """
        try:
            return await self.on_partitions_ready({tp.partition for tp in tps})
        except Exception as error:
            await self.app.crash(error)
            raise
