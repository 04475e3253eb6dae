"""Which partition a key belongs to: murmur2, as Java's default and librdkafka's ``murmur2_random``.

aiokafka has the same hash, a byte at a time. Every output needs it, so here it goes word by word,
and what is asked for again is remembered: shoppers and items come back.
"""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_SEED, _MULTIPLIER, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF
#: About 7 MB when it is full; a longer key is hashed each time, so that no key makes it larger.
_REMEMBERED, _REMEMBERED_BYTES = 32_768, 128


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key, from 0 to ``partitions`` - 1."""
    hashed = _remembered(key) if len(key) <= _REMEMBERED_BYTES else murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Return MurmurHash2 of the bytes with Kafka's seed, as an unsigned 32-bit number."""
    length = len(data)
    h = _SEED ^ length
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word * _MULTIPLIER & _MASK
        h = (h * _MULTIPLIER ^ (k ^ k >> 24) * _MULTIPLIER) & _MASK
    if rest := length & 3:
        h = (h ^ int.from_bytes(data[-rest:], "little")) * _MULTIPLIER & _MASK
    h = (h ^ h >> 13) * _MULTIPLIER & _MASK
    return h ^ h >> 15


_remembered = lru_cache(_REMEMBERED)(murmur2)
