"""Vectors without a model: texts that share words lie close."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def word_vectors(texts: Sequence[str], dim: int) -> NDArray[np.float32]:
    """Return unit vectors, shape (n, dim): sums of one random vector per word."""
    vectors = np.zeros((len(texts), dim), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split() or [text]:
            seed = int.from_bytes(hashlib.md5(word.encode()).digest()[:4], "big")
            vectors[row] += np.random.default_rng(seed).standard_normal(dim)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors
