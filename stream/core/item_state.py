"""What is counted of one item: who took it, what was taken beside it, how popular it is now.

Pure: touches in, state out. Counts decay forward (a count as of ``as_of_ms``), so that the order
in which touches arrive does not matter; only the cap on neighbours can make it matter.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream.messages import ItemNeighbours, ItemPairs, ItemTouch

#: A touch and the offset, in ``item-pairs``, of the message that brought it.
OffsetTouch = tuple[int, ItemTouch]

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
    #: An item is told again once its counts have grown by this share, or after so long.
    told_share: float = 0.0
    told_after_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ItemState:
    """Decayed counts of one item as of ``as_of_ms`` (0: nothing was counted yet).

    ``n_users`` is the count of users who took the item and ``neighbours`` those who took another
    item too, both with the half-life of co-occurrence. ``popularity`` sums the weights of acts
    with its own half-life, ``regions`` splits it; ``lasting`` sums them with the half-life of
    co-occurrence (0 also where an older version has counted). ``offset`` is the last ``item-pairs``
    offset folded. Neighbour counts are exact in float32, so that a row gives back an equal state.

    ``told_ms`` is the ``as_of_ms`` of the counts that the preference workers know; since then the
    counts of users grew by ``untold_taken`` and the popularities by ``untold_popular``.
    """

    item_id: str
    as_of_ms: int = 0
    n_users: float = 0.0
    neighbours: Mapping[str, float] = field(default_factory=dict)
    popularity: float = 0.0
    regions: Mapping[str, float] = field(default_factory=dict)
    offset: int = -1
    lasting: float = 0.0
    told_ms: int = 0
    untold_taken: float = 0.0
    untold_popular: float = 0.0


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
    lasting = state.lasting * taken_decay
    neighbours = {other: count * taken_decay for other, count in state.neighbours.items()}
    regions = {region: share * popular_decay for region, share in state.regions.items()}
    untold_taken, untold_popular = state.untold_taken, state.untold_popular
    for _, touch in new:
        age_ms = as_of_ms - touch.event_time_ms
        taken = _decay(age_ms, rules.cooccurrence_half_life_ms)
        untold_taken += touch.first + len(touch.others)
        untold_popular += abs(touch.weight)
        if touch.first:
            n_users += taken
        for other in touch.others:
            neighbours[other] = neighbours.get(other, 0.0) + taken
        if touch.weight:
            popular = touch.weight * _decay(age_ms, rules.popularity_half_life_ms)
            popularity += popular
            lasting += touch.weight * taken
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
        lasting=lasting,
        told_ms=state.told_ms,
        untold_taken=untold_taken,
        untold_popular=untold_popular,
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


def is_news(state: ItemState, rules: CountingRules) -> bool:
    """True when what the preference workers know of an item is too old, or too far behind.

    Nearly every item is taken beside another every few seconds, and one that was a thousand times
    is hardly another for it; but each telling costs every worker.
    """
    if state.as_of_ms - state.told_ms >= rules.told_after_ms:
        return True
    taken = state.n_users + sum(state.neighbours.values())
    return (
        state.untold_taken > rules.told_share * taken
        or state.untold_popular > rules.told_share * state.popularity
    )


def told(state: ItemState) -> ItemState:
    """Return the state once its counts are told."""
    return replace(state, told_ms=state.as_of_ms, untold_taken=0.0, untold_popular=0.0)


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
        lasting=state.lasting,
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
