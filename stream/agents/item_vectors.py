"""ItemVectors: the catalogue's vectors as a mapping; of those foreseen it is known who has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import EllipsisType

from models.catalogue import Catalogue
from stream.core.user_state import Vector


class ItemVectors(Mapping[str, Vector]):
    """The items that have a vector, as of the first look at each; made for one micro-batch.

    ``seen`` is what was looked up: a vector, None where there is none, and ``...`` where there is
    one that nobody has asked for, as of most: few leave a history in a batch.
    """

    def __init__(self, catalogue: Catalogue, foreseen: Iterable[str] = ()) -> None:
        self._catalogue = catalogue
        item_ids = list(set(foreseen))
        has_one = catalogue.have_vectors(item_ids).tolist()
        self.seen: dict[str, Vector | EllipsisType | None] = {
            item_id: ... if has_it else None
            for item_id, has_it in zip(item_ids, has_one, strict=True)
        }

    def _look_up(self, item_id: str) -> Vector | None:
        vector = self.seen.get(item_id, ...)
        if vector is ...:
            vector = self.seen[item_id] = self._catalogue.raw_vector(item_id)
        return vector

    def __contains__(self, item_id: object) -> bool:
        if item_id in self.seen:
            return self.seen[item_id] is not None
        return isinstance(item_id, str) and self._look_up(item_id) is not None

    def __getitem__(self, item_id: str) -> Vector:
        if (vector := self._look_up(item_id)) is None:
            raise KeyError(item_id)
        return vector

    def __iter__(self) -> Iterator[str]:
        return (item_id for item_id, vector in self.seen.items() if vector is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
