"""KafkaSender: one idempotent producer for everything a process sends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from stream.delivery import DeliveryFailed, Output
from stream.settings import Settings

#: Larger than any message of ours: what does not fit is refused by the broker, by name.
MAX_REQUEST_BYTES = 2 * 1024**2
#: How long a send is tried before it counts as failed; the caller decides what then.
REQUEST_TIMEOUT_MS = 15_000


class KafkaSender:
    """A Sender: acks from all replicas, no duplicates by retries, order kept per partition.

    Partitions are murmur2 of the key, as Java's default partitioner and librdkafka's
    ``murmur2_random`` have it; a message without a key goes round the partitions.
    """

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.topic_prefix
        self._broker = settings.broker
        self._partitions = settings.partitions
        self._producer: Any = None
        self._turn = 0

    async def start(self) -> None:
        """Connect; raises KafkaError when there is no broker."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._broker,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Send what is waiting and disconnect; harmless when not started."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        """Return each output's offset once the broker has every one; raises DeliveryFailed."""
        if self._producer is None:
            raise DeliveryFailed("the sender is not started")
        sent: list[asyncio.Future[Any]] = []
        topic = ""
        try:
            for output in outputs:
                topic = output.topic
                sent.append(await self._send(output))
        except (KafkaError, OSError) as error:
            await asyncio.gather(*sent, return_exceptions=True)
            raise DeliveryFailed(f"topic {topic}: {error!r}") from error
        arrived = await asyncio.gather(*sent, return_exceptions=True)
        offsets: list[int] = []
        for output, result in zip(outputs, arrived, strict=True):
            if isinstance(result, BaseException):
                raise DeliveryFailed(f"topic {output.topic}: {result!r}") from result
            offsets.append(result.offset)
        return offsets

    async def _send(self, output: Output) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self._producer.send(
            self._prefix + output.topic,
            output.value,
            key=output.key,
            partition=self._partition(output),
            timestamp_ms=output.timestamp_ms,
            headers=list(output.headers) or None,
        )
        return sent

    def _partition(self, output: Output) -> int:
        if output.partition is not None:
            return output.partition
        if output.key is not None:
            return self.partition_of(output.topic, output.key)
        self._turn = (self._turn + 1) % self._partitions
        return self._turn

    def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition of a key; every keyed topic has the settings' partition count."""
        return int((murmur2(key) & 0x7FFFFFFF) % self._partitions)
