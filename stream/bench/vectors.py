"""Vectors to measure with, where a model's would take minutes to make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

#: Items that are alike, in a shop of any size.
PER_CLUSTER = 100
#: How far from its centre a vector lies, in lengths of the centre.
_NOISE = 0.5


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Return the vectors, shape (n, dim), with length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def clusters(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Return the cluster of each of n vectors, shape (n,), about PER_CLUSTER of one."""
    return rng.integers(0, max(n // PER_CLUSTER, 1), n)


def around_centres(rng: np.random.Generator, labels: NDArray[np.int64], dim: int) -> Vectors:
    """Return unit vectors, shape (len(labels), dim), around one random centre a label."""
    centres = rng.standard_normal((int(labels.max()) + 1, dim), np.float32)
    noise = rng.standard_normal((len(labels), dim), np.float32)
    return unit(centres[labels] + np.float32(_NOISE) * noise)


def mixed(rng: np.random.Generator, vectors: Vectors, n: int) -> Vectors:
    """Return n unit vectors, each between two of those given: as a shopper's interests are."""
    first, second = rng.integers(0, len(vectors), (2, n))
    share = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    return unit(vectors[first] + share * vectors[second])
