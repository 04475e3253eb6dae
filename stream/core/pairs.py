"""Touches of users -> messages for the partitions of the items that they tell something of.

Each of a touch's other items is told of it too, and may live in another partition. Most of what is
told are ids that come again and again: a message names each once, and numbers it in its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from stream.core.fold import Touch
from stream.messages import PackedPairs, to_message

#: A message stays well below Kafka's default limit of 1 MiB.
PART_BYTES = 600_000
#: More parts than a batch can have.
_MOST_PARTS = 1 << 20
#: Items whose partition is remembered; some 10 MB.
_REMEMBERED = 100_000
#: Items that two bytes can tell apart.
_NARROW = 1 << 16

Numbers = NDArray[np.int64]


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
    columns, n_parts = _Columns.of(touches, partition_of), 1
    while True:
        messages = [
            (partition, to_message(pairs))
            for part in range(n_parts)
            for partition, pairs in columns.told(
                len(touches) * part // n_parts,
                len(touches) * (part + 1) // n_parts,
                source_partition,
                sequence * _MOST_PARTS + part,
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


class _NumberOf(dict[str, int]):
    """Numbers of ids, in the order in which they are asked for."""

    def __missing__(self, item_id: str) -> int:
        number = self[item_id] = len(self)
        return number


@dataclass(frozen=True, slots=True)
class _Columns:
    """Touches by columns, shape (n,), and the others of all of them one behind another.

    ``items`` and ``others`` are places in ``item_ids``, as ``partitions`` is by items.
    """

    item_ids: Sequence[str]
    partitions: Numbers
    items: Numbers
    n_others: Numbers
    others: Numbers
    weights: NDArray[np.float64]
    first: NDArray[np.bool_]
    times_ms: Numbers
    region_names: Sequence[str | None]
    regions: Numbers

    @classmethod
    def of(cls, touches: Sequence[Touch], partition_of: Callable[[str], int]) -> _Columns:
        number_of = _NumberOf()
        items = [number_of[touch.item_id] for touch in touches]
        of_all = chain.from_iterable([touch.others for touch in touches])
        others = np.fromiter(map(number_of.__getitem__, of_all), np.int64)
        regions = [touch.region for touch in touches]
        names = list(dict.fromkeys(regions))
        number_of_name = {name: number for number, name in enumerate(names)}
        return cls(
            item_ids=list(number_of),
            partitions=np.array(list(map(partition_of, number_of)), np.int64),
            items=np.array(items, np.int64),
            n_others=np.array([len(touch.others) for touch in touches], np.int64),
            others=others,
            weights=np.array([touch.weight for touch in touches]),
            first=np.array([touch.first for touch in touches]),
            times_ms=np.array([touch.event_time_ms for touch in touches], np.int64),
            region_names=names,
            regions=np.array([number_of_name[region] for region in regions], np.int64),
        )

    def told(
        self, begin: int, end: int, source_partition: int, sequence: int
    ) -> Iterator[tuple[int, PackedPairs]]:
        """Yield what the touches from ``begin`` to before ``end`` tell each partition."""
        of_pairs = np.cumsum(self.n_others)
        pairs = slice(of_pairs[begin - 1] if begin else 0, of_pairs[end - 1])
        items, n_others, others = (
            self.items[begin:end],
            self.n_others[begin:end],
            self.others[pairs],
        )
        touch_of_pair = np.repeat(np.arange(end - begin), n_others)
        own, of_others = self.partitions[items], self.partitions[others]
        for partition in sorted({*own.tolist(), *of_others.tolist()}):
            mine, beside = own == partition, of_others == partition
            n_beside = np.bincount(touch_of_pair[beside], minlength=len(items))
            told = n_beside > 0
            item_ids, (of_mine, beside_mine, of_told, beside_told) = self._named(
                items[mine], others[mine[touch_of_pair]], items[told], others[beside]
            )
            yield (
                partition,
                PackedPairs(
                    source_partition=source_partition,
                    sequence=sequence,
                    item_ids=item_ids,
                    items=of_mine,
                    n_others=_small(n_others[mine]),
                    others=beside_mine,
                    weights=self.weights[begin:end][mine].astype("<f4").tobytes(),
                    first=self.first[begin:end][mine].tobytes(),
                    times_ms=self.times_ms[begin:end][mine].astype("<i8").tobytes(),
                    region_names=list(self.region_names),
                    regions=_small(self.regions[begin:end][mine]),
                    beside_items=of_told,
                    beside_n_others=_small(n_beside[told]),
                    beside_others=beside_told,
                    beside_times_ms=self.times_ms[begin:end][told].astype("<i8").tobytes(),
                ),
            )

    def _named(self, *columns: Numbers) -> tuple[list[str], list[bytes]]:
        """Return the ids in the columns, each once, and the columns as places in them."""
        is_in = np.zeros(len(self.item_ids), bool)
        for column in columns:
            is_in[column] = True
        place_of = np.cumsum(is_in) - 1
        item_ids = [self.item_ids[number] for number in np.flatnonzero(is_in).tolist()]
        kind = "<u2" if len(item_ids) <= _NARROW else "<u4"
        return item_ids, [place_of[column].astype(kind).tobytes() for column in columns]


def _small(numbers: Numbers) -> bytes:
    return numbers.astype("<u2").tobytes()
