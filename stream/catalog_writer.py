"""CatalogWriter: items, item-embeddings, item-neighbours -> catalogue.

Each topic owns one part of an item: a tombstone in ``items`` ends its being recommended, and its
vector and counts go with the tombstones of their own topics. The topics are read side by side, so
anything else would let an old tombstone take away what belongs to a newer life of the item.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.catalogue import Catalogue
from models.items import ItemFacts
from models.neighbours import NeighbourFacts
from stream.core.events import BadEvent, Item, parse_item
from stream.messages import (
    BadDerived,
    ItemNeighbours,
    read_item_embedding,
    read_item_neighbours,
    vector_of,
)
from stream.spaces import space_of
from stream.topics import ITEM_EMBEDDINGS, ITEM_NEIGHBOURS, ITEMS

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


class Record(Protocol):
    """What is read of a record; ``topic`` is its full name."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class _Refused(ValueError):
    """A vector that may not be mixed with ours; counted apart from what is malformed."""


class CatalogWriter:
    """Applies micro-batches of records; of an item's records in a batch only the last counts."""

    def __init__(self, catalogue: Catalogue, encoder_id: str, names: Mapping[str, str]) -> None:
        """``names`` are the topics' by their full names."""
        self._catalogue = catalogue
        self._encoder_id = encoder_id
        self._names = names
        self._space = space_of(encoder_id, catalogue.dim)
        self._logged: set[str] = set()
        #: Other embedding spaces of which vectors have come.
        self.foreign: set[str] = set()
        #: Vectors of another encoder or dimension, or that are not finite.
        self.n_refused = 0
        #: Unreadable records by topic; those of ``items`` are dead-lettered by the encode tier.
        self.n_malformed: Counter[str] = Counter()

    def apply(self, records: Iterable[Record]) -> None:
        """Apply records; those of one partition in the order of their offsets."""
        by_topic: dict[str, list[Record]] = {}
        for record in records:
            by_topic.setdefault(self._names[record.topic], []).append(record)
        # Most batches are of neighbours alone: to write nothing would cost as much as some items.
        if of_items := by_topic.get(ITEMS.name):
            self._apply_items(of_items)
        if of_vectors := by_topic.get(ITEM_EMBEDDINGS.name):
            self._apply_vectors(of_vectors)
        if of_neighbours := by_topic.get(ITEM_NEIGHBOURS.name):
            self._apply_neighbours(of_neighbours)

    def _apply_items(self, records: list[Record]) -> None:
        last = self._last_of_each(ITEMS.name, records, _item_facts)
        self._catalogue.put_items([facts for facts in last.values() if facts is not None])
        self._catalogue.drop_items(_gone(last))

    def _apply_vectors(self, records: list[Record]) -> None:
        last = self._last_of_each(ITEM_EMBEDDINGS.name, records, self._vector)
        vectors = {item_id: vector for item_id, vector in last.items() if vector is not None}
        if vectors:
            self._catalogue.put_vectors(list(vectors), np.stack(list(vectors.values())))
        self._catalogue.drop_vectors(_gone(last))

    def _apply_neighbours(self, records: list[Record]) -> None:
        last = self._last_of_each(ITEM_NEIGHBOURS.name, records, _neighbour_facts)
        for facts in last.values():
            if facts is not None:
                self._catalogue.put_neighbours(facts)
        self._catalogue.drop_neighbours(_gone(last))

    def _last_of_each(
        self,
        topic: str,
        records: list[Record],
        read: Callable[[bytes, bytes], Value],
    ) -> dict[str, Value | None]:
        """Return the last readable value of each item, None for a tombstone."""
        last: dict[str, Value | None] = {}
        for record in records:
            try:
                if record.key is None:
                    raise BadDerived("a record without a key")
                item_id = record.key.decode()
                last[item_id] = None if record.value is None else read(record.value, record.key)
            except _Refused:
                self.n_refused += 1
            except (BadEvent, BadDerived, UnicodeDecodeError) as error:
                self._count_malformed(topic, record, error)
        return last

    def _vector(self, raw: bytes, _key: bytes) -> NDArray[np.float32]:
        message = read_item_embedding(raw)
        made_in = space_of(message.encoder, message.dim)
        if made_in != self._space:
            self.foreign.add(made_in)
            self._refuse(made_in)
        vector = vector_of(message, self._encoder_id)
        if not np.isfinite(vector).all():
            self._refuse(f"{made_in} with numbers that are not finite")
        return vector

    def _refuse(self, maker: str) -> None:
        # Once for each: a change of encoder leaves as many foreign vectors as there are items.
        if maker not in self._logged:
            self._logged.add(maker)
            logger.warning("item vectors refused: expected %s, got %s", self._space, maker)
        raise _Refused(maker)

    def _count_malformed(self, topic: str, record: Record, error: Exception) -> None:
        self.n_malformed[topic] += 1
        logger.debug(
            "catalogue record ignored: topic=%s partition=%s offset=%s error=%s",
            record.topic,
            record.partition,
            record.offset,
            error,
        )


def _gone(last: dict[str, Value | None]) -> list[str]:
    return [item_id for item_id, value in last.items() if value is None]


def _item_facts(raw: bytes, key: bytes) -> ItemFacts:
    return facts_of_item(parse_item(raw, key))


def facts_of_item(item: Item) -> ItemFacts:
    """Return what an event of ``items`` says."""
    return ItemFacts(
        item_id=item.item_id,
        title=item.title,
        updated_ms=item.updated_ms,
        in_stock=item.in_stock,
        created_ms=item.created_ms,
        categories=tuple(item.categories),
        brand=item.brand,
        price=item.price,
        locale=item.locale,
    )


def _neighbour_facts(raw: bytes, _key: bytes) -> NeighbourFacts:
    return facts_of(read_item_neighbours(raw))


def facts_of(message: ItemNeighbours) -> NeighbourFacts:
    """Return what a message of ``item-neighbours`` says."""
    return NeighbourFacts(
        item_id=message.item_id,
        as_of_ms=message.as_of_ms,
        n_users=message.n_users,
        neighbours=message.neighbours,
        popularity=message.popularity,
        regions=message.regions,
        lasting=message.lasting,
    )
