"""ItemVectors: the catalogue's vectors as a mapping, those foreseen fetched in one go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from models.catalogue import Catalogue
from stream.core.user_state import Vector


class ItemVectors(Mapping[str, Vector]):
    """The items that have a vector, as of the first look at each; made for one micro-batch."""

    def __init__(self, catalogue: Catalogue, foreseen: Iterable[str] = ()) -> None:
        self._catalogue = catalogue
        self._looked_up: dict[str, Vector | None] = {}
        item_ids = list(set(foreseen))
        vectors, known = self._catalogue.raw_vectors(item_ids)
        for item_id, vector, is_known in zip(item_ids, vectors, known.tolist(), strict=True):
            self._looked_up[item_id] = vector if is_known else None

    def _look_up(self, item_id: str) -> Vector | None:
        if item_id not in self._looked_up:
            self._looked_up[item_id] = self._catalogue.raw_vector(item_id)
        return self._looked_up[item_id]

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._look_up(item_id) is not None

    def __getitem__(self, item_id: str) -> Vector:
        if (vector := self._look_up(item_id)) is None:
            raise KeyError(item_id)
        return vector

    def __iter__(self) -> Iterator[str]:
        return (item_id for item_id, vector in self._looked_up.items() if vector is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
