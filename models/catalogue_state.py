"""CatalogueState: all that a catalogue holds, as plain arrays and values, for a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.items import ItemFacts

Places = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class NeighbourState:
    """What shoppers did, n items with m neighbours in all; ``places`` and ``others`` count ids.

    The neighbours of item i are ``others`` and ``counts`` from ``ends[i - 1]`` to ``ends[i]``.
    """

    places: Places  # (n,)
    n_users: NDArray[np.float64]  # (n,)
    as_of_ms: NDArray[np.int64]  # (n,)
    popularity: NDArray[np.float64]  # (n,)
    lasting: NDArray[np.float64]  # (n,)
    ends: NDArray[np.int64]  # (n,)
    others: Places  # (m,)
    counts: NDArray[np.float32]  # (m,)
    regions: list[Mapping[str, float]] = field(default_factory=list)  # n


@dataclass(frozen=True, slots=True)
class CatalogueState:
    """``ids`` names every item mentioned; ``vector_places`` says whose the vectors are."""

    ids: list[str]
    facts: list[ItemFacts]
    vector_places: Places  # (v,)
    vectors: NDArray[np.float16]  # (v, dim)
    neighbours: NeighbourState
