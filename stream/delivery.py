"""What is read and what is sent: plain values, and the promise of a send that has arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

Headers = tuple[tuple[str, bytes], ...]


class SourceMessage(Struct, frozen=True, gc=False):
    """One message as the broker gave it; ``topic`` is without the settings' prefix."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Output(Struct, frozen=True, gc=False):
    """One message to send; without ``partition`` the key's murmur2 hash decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


class DeliveryFailed(RuntimeError):
    """The broker did not acknowledge; the text names the topic and the broker's reason."""


class Sender(Protocol):
    """What sends to Kafka; a list in tests."""

    async def send(self, outputs: Sequence[Output]) -> Sequence[int]:
        """Return each output's offset, in order, once the broker has acknowledged every one.

        Raises DeliveryFailed when it will not; some of the outputs may have arrived then.
        """

    def partition_of(self, topic: str, key: bytes) -> int:
        """Return the partition that a key belongs to (murmur2, as Java's default)."""
