"""KafkaSender: one idempotent producer for everything a process sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream.connection import client_options
from stream.delivery import DeliveryFailed, Output
from stream.engine.lease import Lease
from stream.partitioner import partition_of
from stream.settings import Settings
from stream.topic_names import FullNames, short_name

#: Larger than any message of ours: what does not fit is refused before anything is sent.
MAX_REQUEST_BYTES = 2 * 1024**2
#: How long a send is tried before it counts as failed; the caller decides what then.
REQUEST_TIMEOUT_MS = 15_000
_MAX_BATCH_BYTES = 256 * 1024

Place = tuple[str, int]  # topic with the prefix, partition


@dataclass(slots=True)
class _Batch:
    """Messages of one partition that travel together, and where they stand in the outputs."""

    builder: Any
    indices: list[int] = field(default_factory=list)


class KafkaSender:
    """A Sender: acks from all replicas, no duplicates by retries, order kept per partition.

    A key decides the partition (see stream.partitioner); a message without a key goes round the
    partitions.
    """

    def __init__(
        self,
        settings: Settings,
        on_outcome: Callable[[str], None] = lambda problem: None,
        on_sent: Callable[[Sequence[Output]], None] = lambda outputs: None,
    ) -> None:
        """``on_outcome`` is told what was wrong with each send, or an empty text; ``on_sent`` what
        the broker has.
        """
        self._full_names = FullNames(settings)
        self._settings = settings
        self._partitions = settings.partitions
        self._producer: Any = None
        self._turn = 0
        self._on_outcome = on_outcome
        self._on_sent = on_sent
        self._lease: Lease | None = None

    def write_only_with(self, lease: Lease) -> None:
        """Send nothing without the lease from now on, not even what was begun with it."""
        self._lease = lease
        if self._producer is not None:
            self._guard(self._producer)

    def _guard(self, producer: Any) -> None:
        if self._lease is not None:
            producer.client.send = self._lease.guarding(producer.client.send)

    async def start(self) -> None:
        """Connect; raises KafkaError when there is no broker."""
        self._producer = await self._started()

    async def _started(self) -> Any:
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=_MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        self._guard(producer)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _renew(self) -> None:
        """Begin anew: a message that the broker refused has used up a number in the sequence.

        The broker waits for that number, and refuses everything behind it for good.
        """
        old, self._producer = self._producer, await self._started()
        await old.stop()

    async def stop(self) -> None:
        """Send what is waiting and disconnect; harmless when not started."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        """Return each output's offset once the broker has every one; raises DeliveryFailed."""
        try:
            offsets = await self._delivered(outputs)
        except DeliveryFailed as error:
            self._on_outcome(str(error))
            raise
        self._on_outcome("")
        self._on_sent(outputs)
        return offsets

    async def _delivered(self, outputs: Sequence[Output]) -> list[int]:
        if self._producer is None:
            raise DeliveryFailed("the sender is not started")
        places = self._batches(outputs)
        sent = await asyncio.gather(
            *(self._send(place, batches) for place, batches in places.items()),
            return_exceptions=True,
        )
        if any(isinstance(r, KafkaError) and not r.retriable for r in sent):
            try:
                await self._renew()
            except (KafkaError, OSError) as error:
                raise DeliveryFailed(f"no connection: {error!r}") from error
        offsets = [0] * len(outputs)
        for (topic, _), batches, result in zip(places, places.values(), sent, strict=True):
            if isinstance(result, (KafkaError, OSError)):
                name = short_name(self._settings, topic)
                raise DeliveryFailed(f"topic {name}: {result!r}") from result
            if isinstance(result, BaseException):
                raise result
            for batch, first in zip(batches, result, strict=True):
                for n, index in enumerate(batch.indices):
                    offsets[index] = first + n
        return offsets

    def _batches(self, outputs: Sequence[Output]) -> dict[Place, list[_Batch]]:
        # aiokafka's own batching makes a future for each message, which costs more than all else.
        places: dict[Place, list[_Batch]] = {}
        for index, output in enumerate(outputs):
            place = self._full_names[output.topic], self._partition(output)
            batches = places.setdefault(place, [])
            if not batches or not _append(batches[-1], index, output):
                batches.append(_Batch(self._producer.create_batch()))
                # Of whatever size, the first message of a batch is taken.
                _append(batches[-1], index, output)
                size = batches[-1].builder.size()
                if size > MAX_REQUEST_BYTES:
                    raise DeliveryFailed(f"topic {output.topic}: a message of {size} bytes")
        return places

    async def _send(self, place: Place, batches: Sequence[_Batch]) -> list[int]:
        """Return the offset of each batch's first message."""
        topic, partition = place
        arriving: list[asyncio.Future[Any]] = []
        try:
            for batch in batches:
                # Closed, so that no other send adds to it.
                batch.builder.close()
                arriving.append(
                    await self._producer.send_batch(batch.builder, topic, partition=partition)
                )
        except (KafkaError, OSError):
            await asyncio.gather(*arriving, return_exceptions=True)
            raise
        arrived = await asyncio.gather(*arriving, return_exceptions=True)
        offsets: list[int] = []
        for result in arrived:
            if isinstance(result, BaseException):
                raise result
            offsets.append(result.offset)
        return offsets

    def _partition(self, output: Output) -> int:
        if output.partition is not None:
            return output.partition
        if output.key is not None:
            return self.partition_of(output.topic, output.key)
        self._turn = (self._turn + 1) % self._partitions
        return self._turn

    def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition of a key; every keyed topic has the settings' partition count."""
        return partition_of(key, self._partitions)


def _append(batch: _Batch, index: int, output: Output) -> bool:
    """Add a message to a batch unless it is full."""
    added = batch.builder.append(
        key=output.key,
        value=output.value,
        timestamp=output.timestamp_ms,
        headers=list(output.headers),
    )
    if added is None:
        return False
    batch.indices.append(index)
    return True
