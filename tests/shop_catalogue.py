"""A real Catalogue filled the way a test thinks of it: vectors, strengths of pairs, popularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from builders import NOW_MS

from models.catalogue import Catalogue
from models.item_index import ExactIndex
from models.items import ItemFacts
from models.learnt_items import LearntItems
from models.neighbours import NeighbourFacts
from models.user_model import UserModel


class ShopCatalogue(Catalogue):
    """Items in stock by id; the last one given is the newest."""

    def __init__(
        self,
        vectors: Mapping[str, Sequence[float]],
        dim: int,
        user_model: UserModel | None = None,
    ) -> None:
        learnt = user_model and LearntItems(user_model, lambda _: ExactIndex(user_model.dim))
        super().__init__(dim, learnt=learnt)
        self._taken: dict[str, Mapping[str, float]] = {item_id: {} for item_id in vectors}
        self._popular: dict[str | None, Mapping[str, float]] = {}
        if vectors:
            self.put_items([ItemFacts(i, i, NOW_MS + n) for n, i in enumerate(vectors)])
            self.put_vectors(list(vectors), np.asarray(list(vectors.values()), np.float32))
            self._tell()

    def put_strengths(self, item_id: str, strengths: Mapping[str, float]) -> None:
        """Let C be what it is said to be, seen from ``item_id``."""
        self._taken[item_id] = strengths
        self._tell()

    def put_popularity(self, counts: Mapping[str, float], region: str | None = None) -> None:
        self._popular[region] = counts
        self._tell()

    def _tell(self) -> None:
        for item_id, strengths in self._taken.items():
            self.put_neighbours(
                NeighbourFacts(
                    item_id=item_id,
                    as_of_ms=NOW_MS,
                    n_users=1.0,
                    neighbours=list(strengths.items()),
                    popularity=self._popular.get(None, {}).get(item_id, 0.0),
                    regions={
                        region: counts[item_id]
                        for region, counts in self._popular.items()
                        if region is not None and item_id in counts
                    },
                )
            )
