"""Committer: a micro-batch's state and outputs take effect together, once.

Faust delivers at least once. A commit makes the effects exact:

1. The rows of the batch, and a *ledger* with the batch's outputs and the source offsets it
   covers, are sent to the changelog, ledger first. All of a partition's changelog lies in one
   partition of one idempotent producer, so the order holds.
2. Once that has arrived, the same goes into the local store in one write. So the store never holds
   what the changelog does not: whoever loses the partition meanwhile leaves nothing behind.
3. Then the outputs are sent. Once they have arrived, the events are acknowledged.

After a crash the ledger found in the store is published again, byte for byte: whatever was not
sent is sent now, and what is repeated has the id and the bytes it had. Events read again are
folded only into rows that do not reflect them yet, and cause no output when the ledger covers
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

import msgspec
from msgspec import Struct
from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from stream.delivery import DeliveryFailed, Headers, Output, Sender
from stream.engine.lease import Lease
from stream.engine.stores import stamp, unstamp
from stream.engine.table import CONTROL, PartitionTable, StoreFailed
from stream.spaces import OtherEncoder

log = logging.getLogger(__name__)

Value = TypeVar("Value")

LEDGER_KEY = CONTROL + b"ledger"
KEYS_PREFIX = LEDGER_KEY + b"/"
CHUNK_PREFIX = LEDGER_KEY + b":"
DELIVERED_KEY = CONTROL + b"delivered"
#: A record of a ledger stays well below Kafka's default limit of 1 MiB per message.
CHUNK_BYTES = 600_000
#: Who waits longer keeps a group waiting that wants its partitions back.
FIRST_RETRY_S, RETRY_AT_LEAST_EVERY_S = 0.1, 2.0


class CommitFailed(RuntimeError):
    """Part of a commit may have been sent: the worker must restart, and finish it."""


class WorkerEnds(CommitFailed):
    """Something failed before, and nothing that comes behind it may be committed."""


class _NotOwner(CommitFailed):
    """The partitions may be another worker's by now."""


class _TakenAway(Exception):
    """Partitions that were to be taken over are being taken away again."""


class Effect(Struct, frozen=True, array_like=True, gc=False):
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
    """What the last commit of a partition did.

    Its outputs lie in ``n_chunks`` records beside it, the keys of its rows in ``n_key_chunks``.
    ``space`` names the embedding space of all rows of the partition, empty where no vectors are
    kept or where an earlier version wrote it, which names none.
    """

    through: dict[str, int]
    n_key_chunks: int
    n_chunks: int
    stream_time_ms: int
    space: str = ""


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
    is_nameless: bool = False
    #: Records of outputs and of keys that are stored beside the ledger, older ones included.
    n_chunks: int = 0
    n_key_chunks: int = 0


_ledgers = msgspec.msgpack.Decoder(Ledger)
_chunks = msgspec.msgpack.Decoder(list[Effect])
_key_chunks = msgspec.msgpack.Decoder(list[bytes])

Rows = dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A commit as it is stored and sent; ``rows`` in the order of the changelog."""

    commit: PartitionCommit
    sequence: int
    ledger: Ledger
    rows: Rows


class Committer:
    """Commits to one table; partitions are held between ``recover`` and ``release``."""

    def __init__(
        self,
        table: PartitionTable,
        sender: Sender,
        changelog: str,
        on_retry: Callable[[], None] = lambda: None,
        lease: Lease | None = None,
        space: str = "",
    ) -> None:
        """``lease`` says whether the partitions held are still this worker's; ``space`` names the
        embedding space of the vectors in its rows, empty where there are none."""
        self._lease = lease
        self._space = space
        self._term = 0
        self._taking_over = asyncio.Lock()
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

    def through_if_held(self, partition: int, topic: str) -> int | None:
        """Return ``through``, None for a partition that has been taken away meanwhile."""
        return self.through(partition, topic) if partition in self._held else None

    def covered(self, partition: int) -> Mapping[str, int]:
        """Return ``through`` of every topic that has any."""
        return self._held[partition].through

    def was_sent(self, partition: int, effect_id: str) -> bool:
        """True for an output that the ledger found at recovery holds: it is out already."""
        return effect_id in self._held[partition].recovered_ids

    def nameless(self, partitions: Iterable[int]) -> list[int]:
        """Return the partitions whose rows do not say of which embedding space they are."""
        held = (number for number in sorted(partitions) if number in self._held)
        return [number for number in held if self._held[number].is_nameless]

    def next_sequence(self, partition: int) -> int:
        return self._held[partition].sequence + 1

    def stream_time_ms(self, partition: int) -> int:
        """Return the latest event time folded in this partition, 0 when none was."""
        return self._held[partition].stream_time_ms

    async def release(self, partitions: Iterable[int]) -> None:
        """Let go of partitions, once nothing is being sent for them."""
        async with self._taking_over:
            self._let_go(partitions)

    def _let_go(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._held.pop(partition, None)

    async def hold(self, partitions: set[int]) -> bool:
        """Hold exactly these partitions: finish the last commit of each new one.

        False when they are taken away meanwhile: the group's next assignment says what to hold.
        """
        async with self._taking_over:
            self._term = self._lease.term if self._lease else 0
            self._let_go(self.partitions - partitions)
            for partition in sorted(partitions - self.partitions):
                if not self._may_take_over():
                    return False
                try:
                    await self.recover(partition)
                except _TakenAway:
                    return False
            return self._may_take_over()

    def _may_take_over(self) -> bool:
        return self._lease is None or self._lease.may_take_over(self._term)

    async def recover(self, partition: int) -> None:
        """Take hold of a partition and finish its last commit.

        Raises StoreFailed when its ledger cannot be read: the local store is then built anew from
        the changelog at the next start. Raises OtherEncoder, with nothing sent or written, when its
        rows are of another embedding space.
        """
        stored, delivered = self._table.read(partition, [LEDGER_KEY, DELIVERED_KEY])
        if stored is None:
            self._held[partition] = _Held()
            return
        sequence, raw = unstamp(stored)
        with self._reading(partition):
            ledger = _ledgers.decode(raw)
            last = self._last_commit(partition, sequence, ledger)
        if ledger.space not in ("", self._space):
            raise OtherEncoder(
                f"rows of {self._changelog}, partition {partition}", self._space, ledger.space
            )
        ids = frozenset(effect.effect_id for effect in last.commit.effects if effect.effect_id)
        self._held[partition] = _Held(
            sequence,
            dict(ledger.through),
            ledger.stream_time_ms,
            ids,
            ledger.space != self._space,
            self._n_stored(partition, _chunk_key),
            self._n_stored(partition, _keys_key),
        )
        if last.rows and (delivered is None or unstamp(delivered)[0] != sequence):
            log.info("finishing commit partition=%d sequence=%d", partition, sequence)
            await self._send([last], taking_over=True)

    def _n_stored(self, partition: int, key_of: Callable[[int], bytes]) -> int:
        """Return how many records there are: earlier versions left those of larger commits."""
        number = 0
        while self._table.read(partition, [key_of(number)]) != [None]:
            number += 1
        return number

    @contextmanager
    def _reading(self, partition: int) -> Iterator[None]:
        try:
            yield
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._table.condemn(partition)
            raise StoreFailed(f"the ledger of partition {partition} is damaged: {error}") from error

    def _last_commit(self, partition: int, sequence: int, ledger: Ledger) -> _Prepared:
        """Return the commit of a ledger; without rows when there is nothing left to finish."""
        commit = PartitionCommit(partition)
        names: list[bytes] = []
        # One by one: a damaged ledger may say that there are any number.
        for name in chain(
            map(_chunk_key, range(ledger.n_chunks)), map(_keys_key, range(ledger.n_key_chunks))
        ):
            names.append(name)
            [record] = self._table.read(partition, [name])
            # Another number: a later commit was cut off while it was being written. All of this
            # one had arrived before that commit began.
            if record is None or unstamp(record)[0] != sequence:
                return _Prepared(PartitionCommit(partition), sequence, ledger, {})
            if name.startswith(KEYS_PREFIX):
                commit.rows.update(dict.fromkeys(_key_chunks.decode(unstamp(record)[1])))
            else:
                commit.effects += _chunks.decode(unstamp(record)[1])
        names += [LEDGER_KEY, *commit.rows]
        values = self._table.read(partition, names)
        return _Prepared(commit, sequence, ledger, dict(zip(names, values, strict=True)))

    async def commit(self, commits: Sequence[PartitionCommit]) -> None:
        """Return when state and outputs are where they belong.

        Raises CommitFailed or StoreFailed when they may be in one place and not in another; what
        else it raises comes before anything is sent, and the commit may be tried again.
        """
        await self._must_own()
        prepared = [self._prepare(commit) for commit in commits]
        try:
            await self._send(prepared)
        except (StoreFailed, CommitFailed):
            raise
        except Exception as error:
            raise CommitFailed(f"a commit could not be finished: {error!r}") from error

    async def _must_own(self, taking_over: bool = False) -> None:
        if self._lease and self._lease.given_up:
            raise WorkerEnds("this worker has failed and is about to end")
        if self._lease and not await self._lease.confirmed(self._term, taking_over):
            if taking_over:
                raise _TakenAway
            raise _NotOwner(
                "this worker's session has run out: its partitions may have another owner"
            )

    def _prepare(self, commit: PartitionCommit) -> _Prepared:
        held = self._held[commit.partition]
        sequence = held.sequence + 1
        rows: Rows = {}
        chunks = list(_in_chunks(commit.effects, _effect_bytes))
        for number, chunk in enumerate(chunks):
            rows[_chunk_key(number)] = stamp(sequence, msgspec.msgpack.encode(chunk))
        key_chunks = list(_in_chunks(list(commit.rows), _key_bytes))
        for number, keys in enumerate(key_chunks):
            rows[_keys_key(number)] = stamp(sequence, msgspec.msgpack.encode(keys))
        # What a larger commit left behind names users who may have been erased since.
        rows.update({_chunk_key(n): None for n in range(len(chunks), held.n_chunks)})
        rows.update({_keys_key(n): None for n in range(len(key_chunks), held.n_key_chunks)})
        through = dict(held.through)
        for topic, offset in commit.through.items():
            # Events read again come in other batches: what was covered stays covered.
            through[topic] = max(offset, through.get(topic, -1))
        ledger = Ledger(
            through=through,
            n_key_chunks=len(key_chunks),
            n_chunks=len(chunks),
            stream_time_ms=max(held.stream_time_ms, commit.stream_time_ms),
            space=self._space,
        )
        rows[LEDGER_KEY] = stamp(sequence, msgspec.msgpack.encode(ledger))
        for key, row in commit.rows.items():
            rows[key] = None if row is None else stamp(sequence, row)
        return _Prepared(commit, sequence, ledger, rows)

    def _store(self, prepared: _Prepared) -> None:
        self._table.write(prepared.commit.partition, prepared.rows)
        held, ledger = self._held[prepared.commit.partition], prepared.ledger
        held.sequence, held.through = prepared.sequence, ledger.through
        held.stream_time_ms, held.is_nameless = ledger.stream_time_ms, False
        held.n_chunks, held.n_key_chunks = ledger.n_chunks, ledger.n_key_chunks

    async def _send(self, prepared: Sequence[_Prepared], taking_over: bool = False) -> None:
        changelog = [
            Output(self._changelog, key, value, one.commit.partition)
            for one in prepared
            for key, value in one.rows.items()
        ]
        outputs = [effect.output() for one in prepared for effect in one.commit.effects]
        offsets = await self._deliver(changelog, taking_over)
        for one in prepared:
            if not taking_over:  # else they were read from there
                self._store(one)
            # The last record of this partition is its highest.
            last, offsets = offsets[len(one.rows) - 1], offsets[len(one.rows) :]
            self._table.delivered(one.commit.partition, last)
        await self._deliver(outputs, taking_over)
        for one in prepared:
            self._table.write(one.commit.partition, {DELIVERED_KEY: stamp(one.sequence, b"")})

    async def _deliver(self, outputs: Sequence[Output], taking_over: bool) -> Sequence[int]:
        """Send until everything has arrived: nothing may be acknowledged before."""
        if not outputs:
            return []
        try:
            # Nearly always the first attempt does, and a policy costs as much as a small send.
            return await self._attempt(outputs, taking_over)
        except DeliveryFailed as error:
            log.warning("to be sent again: %s", error)
            await self._sleep(FIRST_RETRY_S)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(DeliveryFailed),
            wait=wait_exponential_jitter(multiplier=0.2, max=RETRY_AT_LEAST_EVERY_S),
            before_sleep=before_sleep_log(log, logging.WARNING),
            sleep=self._sleep,
        ):
            with attempt:
                return await self._attempt(outputs, taking_over)
        raise AssertionError("unreachable: the loop ends by returning")

    async def _attempt(self, outputs: Sequence[Output], taking_over: bool) -> Sequence[int]:
        await self._must_own(taking_over)
        return await self._sender.send(outputs)

    async def _sleep(self, seconds: float) -> None:
        self._on_retry()
        await asyncio.sleep(seconds)


def names_key(record: bytes, stored: bytes, keys: Collection[bytes]) -> bool:
    """True when a record of a ledger tells of one of some rows: by its key, or in an output."""
    _, raw = unstamp(stored)
    if record.startswith(KEYS_PREFIX):
        return not set(keys).isdisjoint(_key_chunks.decode(raw))
    if not record.startswith(CHUNK_PREFIX):
        return False
    quoted = [b'"%s"' % key for key in keys]
    return any(
        effect.key in keys or any(name in (effect.value or b"") for name in quoted)
        for effect in _chunks.decode(raw)
    )


def _chunk_key(number: int) -> bytes:
    return CHUNK_PREFIX + b"%06d" % number


def _keys_key(number: int) -> bytes:
    return KEYS_PREFIX + b"%06d" % number


def _effect_bytes(effect: Effect) -> int:
    n_bytes = len(effect.value or b"") + len(effect.key or b"") + 200
    return n_bytes + sum(len(name) + len(value) for name, value in effect.headers)


def _key_bytes(key: bytes) -> int:
    return len(key) + 5


def _in_chunks(
    values: Sequence[Value], n_bytes_of: Callable[[Value], int]
) -> Iterable[list[Value]]:
    chunk: list[Value] = []
    size = 0
    for value in values:
        n_bytes = n_bytes_of(value)
        if chunk and size + n_bytes > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(value)
        size += n_bytes
    if chunk:
        yield chunk
