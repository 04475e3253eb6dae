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
        self._fetch(sorted(set(foreseen)))

    def _fetch(self, item_ids: list[str]) -> None:
        vectors, known = self._catalogue.raw_vectors(item_ids)
        for item_id, vector, is_known in zip(item_ids, vectors, known.tolist(), strict=True):
            self._looked_up[item_id] = vector if is_known else None

    def __contains__(self, item_id: object) -> bool:
        if not isinstance(item_id, str):
            return False
        if item_id not in self._looked_up:
            self._fetch([item_id])
        return self._looked_up[item_id] is not None

    def __getitem__(self, item_id: str) -> Vector:
        vector = self._looked_up[item_id] if item_id in self else None
        if vector is None:
            raise KeyError(item_id)
        return vector

    def __iter__(self) -> Iterator[str]:
        return (item_id for item_id, vector in self._looked_up.items() if vector is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
