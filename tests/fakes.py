"""In-memory stand-ins; each passes the same contract tests as the real thing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from word_vectors import word_vectors

from models.encoder import Side
from models.item_index import Vectors
from models.reranking import RerankFailed
from stream.delivery import DeliveryFailed, Output


class Killed(BaseException):
    """The process ends here: nothing may catch it."""


class Outbox:
    """A Sender that keeps what was sent, and fails when told to.

    The next ``failures`` sends fail after half of their messages have arrived. ``dies_after``
    more messages arrive before the process ends in the middle of a send.
    """

    def __init__(self, partitions: int = 4) -> None:
        self.sent: list[Output] = []
        self.partitions = partitions
        self.failures = 0
        self.dies_after: int | None = None

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        first = len(self.sent)
        if self.dies_after is not None:
            if self.dies_after < len(outputs):
                self.sent.extend(outputs[: self.dies_after])
                raise Killed
            self.dies_after -= len(outputs)
        if self.failures:
            self.failures -= 1
            self.sent.extend(outputs[: len(outputs) // 2])
            raise DeliveryFailed(f"topic {outputs[0].topic}: not acknowledged")
        self.sent.extend(outputs)
        return list(range(first, len(self.sent)))

    def partition_of(self, topic: str, key: bytes) -> int:
        return int.from_bytes(hashlib.md5(key).digest()[:4], "big") % self.partitions

    def of(self, topic: str) -> list[Output]:
        return [output for output in self.sent if output.topic == topic]


class HashEncoder:
    """A TextEncoder without a model: texts that share words get vectors that lie close."""

    def __init__(self, dim: int = 32) -> None:
        self.dim = dim
        self.encoder_id = f"hash-{dim}"
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str], side: Side = "passage") -> NDArray[np.float32]:
        self.calls.append(list(texts))
        return word_vectors(texts, self.dim)


class LastItemModel:
    """A UserModel that learnt to go on from the newest item: to what a projection puts near it."""

    name = "last-item"
    history_items = 4

    def __init__(self, encoder_dim: int, dim: int = 5, weight: float = 0.5) -> None:
        self.dim = dim
        self.weight = weight
        self._projection = np.random.default_rng(7).standard_normal((encoder_dim, dim))

    def items(self, item_ids: Sequence[str], vectors: Vectors) -> Vectors:
        learnt = vectors @ self._projection
        lengths = np.linalg.norm(learnt, axis=1, keepdims=True)
        return np.asarray(learnt / np.maximum(lengths, 1e-6), np.float32)

    def shoppers(self, histories: Sequence[Vectors]) -> Vectors:
        found = np.zeros((len(histories), self.dim), np.float32)
        for row, history in enumerate(histories):
            assert len(history) <= self.history_items
            if len(history):
                found[row] = history[-1]
        return found


class TitleLover:
    """A PairScorer that loves some titles, whatever is sought, or can say nothing."""

    name = "title-lover"

    def __init__(self, *titles: str, liked: float = 10.0, is_broken: bool = False) -> None:
        self._titles = titles
        self._liked = liked
        self.is_broken = is_broken
        self.read: list[tuple[str, str]] = []

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        if self.is_broken:
            raise RerankFailed("out of order")
        self.read += pairs
        return np.array([self._liked if t in self._titles else -12.0 for _, t in pairs], np.float32)
