"""Touches of users -> messages for the partitions of the items that they tell something of.

Each of a touch's other items is told of it too, and may live in another partition. Most of what is
told are ids that come again and again: a message names each once, and numbers it in its columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from struct import pack
from typing import Any, TypeVar

from stream.core.fold import Touch
from stream.core.kept import is_native
from stream.messages import PackedPairs, to_message

if is_native():
    from stream.core import _native

#: A message stays well below Kafka's default limit of 1 MiB.
PART_BYTES = 600_000
#: More parts than a batch can have.
_MOST_PARTS = 1 << 20
#: Items whose partition is remembered; some 10 MB.
_REMEMBERED = 100_000
#: Items that two bytes can tell apart.
_NARROW = 1 << 16


def pair_messages(
    touches: Sequence[Touch],
    partition_of: Callable[[str], int],
    *,
    source_partition: int,
    sequence: int,
) -> list[tuple[int, bytes]]:
    """Return what the touches of one micro-batch, at least one, tell: partitions of items and
    messages that Kafka takes.

    The sequences of the messages of a partition grow, and from batch to batch.
    """
    n_parts = 1
    while True:
        messages = [
            (partition, _message(source_partition, sequence * _MOST_PARTS + part, columns))
            for part in range(n_parts)
            for partition, columns in _tell(
                touches[len(touches) * part // n_parts : len(touches) * (part + 1) // n_parts],
                partition_of,
            )
        ]
        if n_parts >= len(touches) or max(len(raw) for _, raw in messages) <= PART_BYTES:
            return messages
        n_parts *= 2


class Partitions(dict[str, int]):
    """The partition of each item asked for, remembered: most of a batch's items were in others."""

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        self._partition_of = partition_of

    def __missing__(self, item_id: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        number = self[item_id] = self._partition_of(item_id)
        return number


Key = TypeVar("Key")
#: Of PackedPairs, by name.
Columns = dict[str, Any]


class _NumberOf(dict[Key, int]):
    """Numbers of keys, in the order in which they are asked for."""

    def __missing__(self, key: Key) -> int:
        number = self[key] = len(self)
        return number


class _Told:
    """What one partition is told, by columns: lists, since most batches are of a few touches."""

    __slots__ = (
        "beside_items", "beside_n_others", "beside_others", "beside_times_ms", "first", "items",
        "n_others", "number_of", "number_of_name", "others", "regions", "times_ms", "weights",
    )  # fmt: skip

    def __init__(self) -> None:
        self.number_of, self.number_of_name = _NumberOf[str](), _NumberOf[str | None]()
        self.items: list[int] = []
        self.n_others: list[int] = []
        self.others: list[int] = []
        self.weights: list[float] = []
        self.first: list[bool] = []
        self.times_ms: list[int] = []
        self.regions: list[int] = []
        self.beside_items: list[int] = []
        self.beside_n_others: list[int] = []
        self.beside_others: list[int] = []
        self.beside_times_ms: list[int] = []

    def touched(self, touch: Touch) -> None:
        """Tell of a touch of an item of the partition."""
        self.items.append(self.number_of[touch.item_id])
        self.n_others.append(len(touch.others))
        self.others += map(self.number_of.__getitem__, touch.others)
        self.weights.append(touch.weight)
        self.first.append(touch.first)
        self.times_ms.append(touch.event_time_ms)
        self.regions.append(self.number_of_name[touch.region])

    def was_beside(self, touch: Touch, others: Sequence[str]) -> None:
        """Tell those of a touch's others that are of the partition."""
        self.beside_items.append(self.number_of[touch.item_id])
        self.beside_n_others.append(len(others))
        self.beside_others += map(self.number_of.__getitem__, others)
        self.beside_times_ms.append(touch.event_time_ms)

    def packed(self) -> Columns:
        place = "H" if len(self.number_of) <= _NARROW else "I"
        return {
            "item_ids": list(self.number_of),
            "items": _packed(place, self.items),
            "n_others": _packed("H", self.n_others),
            "others": _packed(place, self.others),
            "weights": _packed("f", self.weights),
            "first": bytes(self.first),
            "times_ms": _packed("q", self.times_ms),
            "region_names": list(self.number_of_name),
            "regions": _packed("H", self.regions),
            "beside_items": _packed(place, self.beside_items),
            "beside_n_others": _packed("H", self.beside_n_others),
            "beside_others": _packed(place, self.beside_others),
            "beside_times_ms": _packed("q", self.beside_times_ms),
        }


def tell(touches: Sequence[Touch], partition_of: Callable[[str], int]) -> list[tuple[int, Columns]]:
    """Return the columns of what the touches tell each partition, in order of partitions.

    What native code does where it is built, said in Python.
    """
    told: defaultdict[int, _Told] = defaultdict(_Told)
    for touch in touches:
        told[partition_of(touch.item_id)].touched(touch)
        by_partition: defaultdict[int, list[str]] = defaultdict(list)
        for other in touch.others:
            by_partition[partition_of(other)].append(other)
        for partition, others in by_partition.items():
            told[partition].was_beside(touch, others)
    return [(partition, told[partition].packed()) for partition in sorted(told)]


_tell = _native.tell if is_native() else tell


def _message(source_partition: int, sequence: int, columns: Columns) -> bytes:
    pairs = PackedPairs(source_partition=source_partition, sequence=sequence, **columns)
    return to_message(pairs)


def _packed(kind: str, numbers: Sequence[float]) -> bytes:
    return pack(f"<{len(numbers)}{kind}", *numbers)
