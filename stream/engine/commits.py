"""Committer: a micro-batch's state and outputs take effect together, once.

Faust delivers at least once. A commit makes the effects exact:

1. The rows of the batch, and a *ledger* with the batch's outputs and the source offsets it
   covers, go into the local store in one write, then into the changelog, ledger first. All of a
   partition's changelog lies in one partition of one idempotent producer, so the order holds.
2. Once the changelog has arrived, the outputs are sent. Once they have arrived, the events are
   acknowledged.

After a crash the ledger found in the store is published again, byte for byte: whatever was not
sent is sent now, and what is repeated has the id and the bytes it had. Events read again are
folded only into rows that do not reflect them yet, and cause no output when the ledger covers
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct
from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from stream.delivery import DeliveryFailed, Headers, Output, Sender
from stream.engine.stores import stamp, unstamp
from stream.engine.table import CONTROL, PartitionTable

log = logging.getLogger(__name__)

LEDGER_KEY = CONTROL + b"ledger"
DELIVERED_KEY = CONTROL + b"delivered"
#: A chunk of outputs stays well below Kafka's default limit of 1 MiB per message.
CHUNK_BYTES = 600_000


class Effect(Struct, frozen=True, array_like=True):
    """An output and its id; an empty id means that repeats are recognised in another way."""

    effect_id: str
    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()

    def output(self) -> Output:
        return Output(self.topic, self.key, self.value, self.partition, self.headers)


class Ledger(Struct, frozen=True, array_like=True):
    """What the last commit of a partition did; its outputs lie in ``n_chunks`` rows beside it."""

    through: dict[str, int]
    keys: list[bytes]
    n_chunks: int
    stream_time_ms: int


@dataclass(slots=True)
class PartitionCommit:
    """What one micro-batch means to one partition.

    ``through`` is the highest offset per source topic that the batch covers; a row of None is a
    tombstone; ``stream_time_ms`` is the latest event time seen.
    """

    partition: int
    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    through: dict[str, int] = field(default_factory=dict)
    stream_time_ms: int = 0


@dataclass(slots=True)
class _Held:
    sequence: int = 0
    through: dict[str, int] = field(default_factory=dict)
    stream_time_ms: int = 0
    recovered_ids: frozenset[str] = frozenset()


_ledgers = msgspec.msgpack.Decoder(Ledger)
_chunks = msgspec.msgpack.Decoder(list[Effect])


class Committer:
    """Commits to one table; partitions are held between ``recover`` and ``release``."""

    def __init__(
        self,
        table: PartitionTable,
        sender: Sender,
        changelog: str,
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self._table = table
        self._sender = sender
        self._changelog = changelog
        self._on_retry = on_retry
        self._held: dict[int, _Held] = {}

    @property
    def partitions(self) -> set[int]:
        return set(self._held)

    def through(self, partition: int, topic: str) -> int:
        """Return the highest offset of a source topic whose outputs are in a ledger, or -1."""
        return self._held[partition].through.get(topic, -1)

    def was_sent(self, partition: int, effect_id: str) -> bool:
        """True for an output that the ledger found at recovery holds: it is out already."""
        return effect_id in self._held[partition].recovered_ids

    def next_sequence(self, partition: int) -> int:
        return self._held[partition].sequence + 1

    def stream_time_ms(self, partition: int) -> int:
        """Return the latest event time folded in this partition, 0 when none was."""
        return self._held[partition].stream_time_ms

    def release(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._held.pop(partition, None)

    async def hold(self, partitions: set[int]) -> None:
        """Hold exactly these partitions: finish the last commit of each new one."""
        self.release(self.partitions - partitions)
        for partition in sorted(partitions - self.partitions):
            await self.recover(partition)

    async def recover(self, partition: int) -> None:
        """Take hold of a partition and finish its last commit."""
        stored, delivered = self._table.read(partition, [LEDGER_KEY, DELIVERED_KEY])
        if stored is None:
            self._held[partition] = _Held()
            return
        sequence, raw = unstamp(stored)
        ledger = _ledgers.decode(raw)
        effects = self._effects(partition, sequence, ledger.n_chunks)
        ids = frozenset(effect.effect_id for effect in effects if effect.effect_id)
        self._held[partition] = _Held(sequence, dict(ledger.through), ledger.stream_time_ms, ids)
        if delivered is None or unstamp(delivered)[0] != sequence:
            await self._finish(partition, sequence, ledger, effects)

    def _effects(self, partition: int, sequence: int, n_chunks: int) -> list[Effect]:
        chunks = self._table.read(partition, [_chunk_key(i) for i in range(n_chunks)])
        effects: list[Effect] = []
        for chunk in chunks:
            # Another number: a later commit was cut off while its chunks were being written.
            # The outputs of this one had all arrived before that commit began.
            if chunk is None or unstamp(chunk)[0] != sequence:
                return []
            effects += _chunks.decode(unstamp(chunk)[1])
        return effects

    async def _finish(
        self, partition: int, sequence: int, ledger: Ledger, effects: list[Effect]
    ) -> None:
        keys = [*map(_chunk_key, range(ledger.n_chunks)), LEDGER_KEY, *ledger.keys]
        values = self._table.read(partition, keys)
        rows = dict(zip(keys, values, strict=True))
        log.info("finishing commit partition=%d sequence=%d", partition, sequence)
        await self._send([(partition, sequence, rows, effects)])

    async def commit(self, commits: Sequence[PartitionCommit]) -> None:
        """Return when state and outputs are where they belong; may be tried again after a crash."""
        prepared = [self._prepare(commit) for commit in commits]
        await self._send(prepared)

    def _prepare(
        self, commit: PartitionCommit
    ) -> tuple[int, int, dict[bytes, bytes | None], list[Effect]]:
        held = self._held[commit.partition]
        sequence = held.sequence + 1
        through = {**held.through, **commit.through}
        stream_time_ms = max(held.stream_time_ms, commit.stream_time_ms)
        rows: dict[bytes, bytes | None] = {}
        chunks = list(_in_chunks(commit.effects))
        for number, chunk in enumerate(chunks):
            rows[_chunk_key(number)] = stamp(sequence, msgspec.msgpack.encode(chunk))
        ledger = Ledger(through, list(commit.rows), len(chunks), stream_time_ms)
        rows[LEDGER_KEY] = stamp(sequence, msgspec.msgpack.encode(ledger))
        for key, row in commit.rows.items():
            rows[key] = None if row is None else stamp(sequence, row)
        self._table.write(commit.partition, rows)
        held.sequence, held.through, held.stream_time_ms = sequence, through, stream_time_ms
        return commit.partition, sequence, rows, commit.effects

    async def _send(
        self, prepared: Sequence[tuple[int, int, dict[bytes, bytes | None], list[Effect]]]
    ) -> None:
        changelog = [
            Output(self._changelog, key, value, partition)
            for partition, _, rows, _ in prepared
            for key, value in rows.items()
        ]
        offsets = await self._deliver(changelog)
        await self._deliver([effect.output() for *_, effects in prepared for effect in effects])
        for partition, sequence, rows, _ in prepared:
            # The last record of this partition is its highest.
            last, offsets = offsets[len(rows) - 1], offsets[len(rows) :]
            self._table.write(partition, {DELIVERED_KEY: stamp(sequence, b"")})
            self._table.delivered(partition, last)

    async def _deliver(self, outputs: Sequence[Output]) -> Sequence[int]:
        """Send until everything has arrived: nothing may be acknowledged before."""
        if not outputs:
            return []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(DeliveryFailed),
            wait=wait_exponential_jitter(initial=0.2, max=10),
            before_sleep=before_sleep_log(log, logging.WARNING),
            sleep=self._sleep,
        ):
            with attempt:
                return await self._sender.send(outputs)
        raise AssertionError("unreachable: the loop ends by returning")

    async def _sleep(self, seconds: float) -> None:
        self._on_retry()
        await asyncio.sleep(seconds)


def _chunk_key(number: int) -> bytes:
    return LEDGER_KEY + b":%06d" % number


def _in_chunks(effects: Sequence[Effect]) -> Iterable[list[Effect]]:
    chunk: list[Effect] = []
    size = 0
    for effect in effects:
        n_bytes = len(effect.value or b"") + len(effect.key or b"") + 200
        n_bytes += sum(len(name) + len(value) for name, value in effect.headers)
        if chunk and size + n_bytes > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(effect)
        size += n_bytes
    if chunk:
        yield chunk
