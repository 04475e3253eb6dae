"""What a search is asked and what it answers: plain values."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

FoundBy = Literal["words", "meaning", "both"]


class Query(Struct, frozen=True, gc=False):
    """A text, its unit vector by the encoder, (dim,); the shopper's centred interest, (dim,)."""

    text: str
    vector: NDArray[np.float32]
    interest: NDArray[np.float32] | None = None


class Match(Struct, frozen=True, gc=False):
    """An item, how well it fits, and what it was found by."""

    item_id: str
    score: float
    source: FoundBy
