"""What is counted of one item: who took it, what was taken beside it, how popular it is now.

Pure: touches in, state out. Counts decay forward (a count as of ``as_of_ms``), so that the order
in which touches arrive does not matter; only the cap on neighbours can make it matter.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream.core.fold import Touch
from stream.messages import Beside, ItemNeighbours, ItemPairs, ItemTouch, to_message

#: A touch and the offset, in ``item-pairs``, of the message that brought it.
OffsetTouch = tuple[int, ItemTouch]

#: A message of pairs stays well below Kafka's default limit of 1 MiB.
PART_BYTES = 600_000
#: More parts than a batch can have.
_MOST_PARTS = 1 << 20

# Below this a count says nothing any more: 20 half-lives after one touch.
_FORGOTTEN = 2.0**-20

# Rows count this many times the neighbours that are published. A newcomer, at a count of one,
# needs room to grow: cut at what is published, Recall@10 on Amazon Beauty falls from .100 to .096.
_ROOM_TO_GROW = 2


@dataclass(frozen=True, slots=True)
class CountingRules:
    """Half-lives and caps of the counts of an item; ``neighbours_kept`` are published."""

    cooccurrence_half_life_ms: float
    popularity_half_life_ms: float
    neighbours_kept: int = 256
    regions_kept: int = 64


@dataclass(frozen=True, slots=True)
class ItemState:
    """Decayed counts of one item as of ``as_of_ms`` (0: nothing was counted yet).

    ``n_users`` is the count of users who took the item and ``neighbours`` those who took another
    item too, both with the half-life of co-occurrence. ``popularity`` sums the weights of acts
    with its own half-life, ``regions`` splits it. ``offset`` is the last ``item-pairs`` offset
    folded. Neighbour counts are exact in float32, so that a row gives back an equal state.
    """

    item_id: str
    as_of_ms: int = 0
    n_users: float = 0.0
    neighbours: Mapping[str, float] = field(default_factory=dict)
    popularity: float = 0.0
    regions: Mapping[str, float] = field(default_factory=dict)
    offset: int = -1


def touch_of(
    item_id: str,
    recent_items: Iterable[str],
    *,
    weight: float,
    first: bool,
    event_time_ms: int,
    region: str | None = None,
) -> ItemTouch | None:
    """Return what one act means to the row of its item, None when that is nothing.

    A user's first act on an item pairs it with the user's recent items. A repeated act
    (``first`` False) counts for popularity alone.
    """
    if first:
        others = [other for other in dict.fromkeys(recent_items) if other != item_id]
        return ItemTouch(item_id, others, weight, True, event_time_ms, region)
    return ItemTouch(item_id, [], weight, False, event_time_ms, region) if weight else None


def told_of(touches: Iterable[Touch]) -> list[ItemTouch]:
    """Return what users' acts mean to the rows of their items, those that mean nothing left out."""
    told = (
        touch_of(
            touch.item_id,
            touch.others,
            weight=touch.weight,
            first=touch.first,
            event_time_ms=touch.event_time_ms,
            region=touch.region,
        )
        for touch in touches
    )
    return [touch for touch in told if touch]


def pairs_by_partition(
    touches: Iterable[ItemTouch],
    partition_of: Callable[[str], int],
    *,
    source_partition: int,
    sequence: int,
) -> dict[int, ItemPairs]:
    """Return one ItemPairs per item partition, from the touches of one micro-batch.

    Each of a touch's other items is told of it too, and may live in another partition.
    """
    own: defaultdict[int, list[ItemTouch]] = defaultdict(list)
    beside: defaultdict[int, list[Beside]] = defaultdict(list)
    partitions = _Partitions(partition_of)
    for touch in touches:
        item_id = touch.item_id
        own[partitions[item_id]].append(touch)
        others: dict[int, list[str]] = {}
        for other in touch.others:
            partition = partitions[other]
            if partition in others:
                others[partition].append(other)
            else:
                others[partition] = [other]
        for partition, of_it in others.items():
            beside[partition].append(Beside(item_id, of_it, touch.event_time_ms))
    return {
        partition: ItemPairs(
            source_partition=source_partition,
            sequence=sequence,
            touches=own[partition],
            beside=beside[partition],
        )
        for partition in own.keys() | beside.keys()
    }


class _Partitions(dict[str, int]):
    """The partitions of items, each found once."""

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        super().__init__()
        self._partition_of = partition_of

    def __missing__(self, item_id: str) -> int:
        partition = self[item_id] = self._partition_of(item_id)
        return partition


def to_messages(pairs: ItemPairs) -> list[bytes]:
    """Return messages that Kafka takes, with sequences of their own that grow like the batch's."""
    n_parts, most = 1, max(len(pairs.touches), len(pairs.beside))
    while True:
        messages = [to_message(part) for part in _parts(pairs, n_parts)]
        if n_parts >= most or max(map(len, messages)) <= PART_BYTES:
            return messages
        n_parts *= 2


def _parts(pairs: ItemPairs, n_parts: int) -> Iterator[ItemPairs]:
    first, touches, beside = pairs.sequence * _MOST_PARTS, pairs.touches, pairs.beside
    for part in range(n_parts):
        yield ItemPairs(
            source_partition=pairs.source_partition,
            sequence=first + part,
            touches=touches[len(touches) * part // n_parts : len(touches) * (part + 1) // n_parts],
            beside=beside[len(beside) * part // n_parts : len(beside) * (part + 1) // n_parts],
        )


def touches_by_item(batch: Iterable[tuple[int, ItemPairs]]) -> dict[str, list[OffsetTouch]]:
    """Return the touches of each item in a micro-batch of (offset, message)."""
    by_item: defaultdict[str, list[OffsetTouch]] = defaultdict(list)
    for offset, pairs in batch:
        for touch in pairs.touches:
            by_item[touch.item_id].append((offset, touch))
        for beside in pairs.beside:
            told = offset, ItemTouch("", [beside.item_id], 0.0, False, beside.event_time_ms, None)
            for other in beside.others:
                by_item[other].append(told)
    return by_item


def fold(state: ItemState, touches: Sequence[OffsetTouch], rules: CountingRules) -> ItemState:
    """Return the state with the touches added; those at or below ``state.offset`` are repeats."""
    new = [(offset, touch) for offset, touch in touches if offset > state.offset]
    if not new:
        return state
    as_of_ms = max(state.as_of_ms, max(touch.event_time_ms for _, touch in new))
    aged_ms = as_of_ms - state.as_of_ms
    taken_decay = _decay(aged_ms, rules.cooccurrence_half_life_ms)
    popular_decay = _decay(aged_ms, rules.popularity_half_life_ms)
    n_users = state.n_users * taken_decay
    popularity = state.popularity * popular_decay
    neighbours = {other: count * taken_decay for other, count in state.neighbours.items()}
    regions = {region: share * popular_decay for region, share in state.regions.items()}
    for _, touch in new:
        age_ms = as_of_ms - touch.event_time_ms
        taken = _decay(age_ms, rules.cooccurrence_half_life_ms)
        if touch.first:
            n_users += taken
        for other in touch.others:
            neighbours[other] = neighbours.get(other, 0.0) + taken
        if touch.weight:
            popular = touch.weight * _decay(age_ms, rules.popularity_half_life_ms)
            popularity += popular
            if touch.region is not None:
                regions[touch.region] = regions.get(touch.region, 0.0) + popular
    return ItemState(
        item_id=state.item_id,
        as_of_ms=as_of_ms,
        n_users=n_users,
        neighbours=_as_float32(_largest(neighbours, _ROOM_TO_GROW * rules.neighbours_kept)),
        popularity=popularity,
        regions=_largest(regions, rules.regions_kept),
        offset=max(offset for offset, _ in new),
    )


def fold_batch(
    states: Mapping[str, ItemState],
    by_item: Mapping[str, Sequence[OffsetTouch]],
    rules: CountingRules,
) -> dict[str, ItemState]:
    """Return the states that a micro-batch changed; items without a state get their first."""
    changed: dict[str, ItemState] = {}
    for item_id, touches in by_item.items():
        before = states.get(item_id) or ItemState(item_id)
        after = fold(before, touches, rules)
        if after is not before:
            changed[item_id] = after
    return changed


def to_neighbours(state: ItemState, rules: CountingRules) -> ItemNeighbours:
    """Return what the preference workers are told of an item: neighbours, largest first."""
    # A stable sort of the negatives: largest first, and what ties stays in the state's own order.
    counts = np.fromiter(state.neighbours.values(), np.float32, len(state.neighbours))
    others = list(state.neighbours)
    largest = np.argsort(-counts, kind="stable")[: rules.neighbours_kept].tolist()
    return ItemNeighbours(
        item_id=state.item_id,
        as_of_ms=state.as_of_ms,
        n_users=state.n_users,
        neighbours=[(others[place], float(counts[place])) for place in largest],
        popularity=state.popularity,
        regions=dict(state.regions),
    )


@dataclass(frozen=True, slots=True)
class PairsLedger:
    """The highest ``ItemPairs.sequence`` folded of each source partition.

    A batch that was published again after a crash has a new offset but its old sequence. Keep the
    ledger no earlier than the item states of the same batch: a ledger that is ahead of them
    would drop what was never counted, while one that lags is made good by the states' offsets.
    """

    sequences: Mapping[int, int] = field(default_factory=dict)

    def admits(self, pairs: ItemPairs) -> bool:
        """Return whether this batch was not folded before."""
        return pairs.sequence > self.sequences.get(pairs.source_partition, -1)

    def noting(self, pairs: ItemPairs) -> PairsLedger:
        """Return the ledger after this batch."""
        highest = max(pairs.sequence, self.sequences.get(pairs.source_partition, -1))
        return replace(self, sequences={**self.sequences, pairs.source_partition: highest})


def admit(
    ledger: PairsLedger, batch: Iterable[tuple[int, ItemPairs]]
) -> tuple[PairsLedger, list[tuple[int, ItemPairs]]]:
    """Return the ledger after a micro-batch of (offset, message), and the messages to fold."""
    kept = []
    for offset, pairs in batch:
        if ledger.admits(pairs):
            ledger = ledger.noting(pairs)
            kept.append((offset, pairs))
    return ledger, kept


def _decay(age_ms: float, half_life_ms: float) -> float:
    return float(2.0 ** (-age_ms / half_life_ms)) if age_ms else 1.0


def _largest_first(entry: tuple[str, float]) -> tuple[float, str]:
    # The id settles ties, so that a replay cuts the same ones.
    return -entry[1], entry[0]


def _largest(counts: dict[str, float], kept: int) -> dict[str, float]:
    counts = {key: count for key, count in counts.items() if abs(count) >= _FORGOTTEN}
    if len(counts) <= kept:
        return counts
    return dict(heapq.nsmallest(kept, counts.items(), key=_largest_first))


def _as_float32(counts: dict[str, float]) -> dict[str, float]:
    rounded = np.fromiter(counts.values(), np.float32, len(counts)).tolist()
    return dict(zip(counts, rounded, strict=True))
