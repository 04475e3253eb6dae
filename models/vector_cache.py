"""VectorCache: the vectors of texts that come again, such as popular queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from models.encoder import Side, TextEncoder


class VectorCache:
    """A TextEncoder that remembers the ``size`` texts used last; counts hits and misses.

    Not for two threads at once; vectors are those of the encoder behind it, bit for bit.
    """

    def __init__(self, encoder: TextEncoder, size: int) -> None:
        self._encoder = encoder
        self._vectors: LRUCache[tuple[Side, str], NDArray[np.float32]] = LRUCache(max(size, 1))
        self._size = size
        self.hits = 0
        self.misses = 0

    @property
    def encoder_id(self) -> str:
        return self._encoder.encoder_id

    @property
    def dim(self) -> int:
        return self._encoder.dim

    def encode(self, texts: Sequence[str], side: Side = "passage") -> NDArray[np.float32]:
        """Return one unit vector per text, shape (len(texts), dim), in the order given."""
        found = {text: self._vectors.get((side, text)) for text in texts} if self._size else {}
        missing = [text for text in dict.fromkeys(texts) if found.get(text) is None]
        new = dict(zip(missing, self._encoder.encode(missing, side), strict=True))
        self.misses += len(missing)
        self.hits += len(texts) - len(missing)
        if self._size:
            for text, vector in new.items():
                self._vectors[side, text] = vector.copy()
        vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            known = found.get(text)
            vectors[row] = new[text] if known is None else known
        return vectors
