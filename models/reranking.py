"""Reranking: the first items of an answer, ordered anew by a model that reads query and title.

Such a model reads every pair by itself, milliseconds each: so only the first items are read, what
was read is remembered, and a batch of searches has so much time and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from models.matches import Match

#: Longer texts are cut here: what a model reads of the rest is its own limit's matter.
_MAX_CHARS = 400
#: Log-odds of a pair are taken for between 0 and 1 here: those of MS MARCO's models lie between.
_LEAST, _MOST = -12.0, 12.0
#: Pairs remembered: some 20 MB.
_REMEMBERED = 50_000


class RerankFailed(Exception):
    """A model that could not say anything of some pairs."""


class PairScorer(Protocol):
    """A model that reads a query and a text at once (models.cross_encoder.CrossEncoder)."""

    @property
    def name(self) -> str: ...

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return log-odds, (len(pairs),); raises RerankFailed."""


@dataclass(frozen=True, slots=True)
class RerankRule:
    """``weight`` of the model beside the score, its ``k`` first items, ``seconds`` a batch."""

    weight: float = 1.0
    k: int = 10
    seconds: float = 0.06


class Reranking:
    """Orders the first items of answers anew. Used by one thread at a time."""

    def __init__(
        self,
        scorer: PairScorer,
        title_of: Callable[[str], str],
        rule: RerankRule,
        clock: Callable[[], float],
    ) -> None:
        """``title_of`` is asked by item id and empty where there is none; ``clock``: seconds."""
        self.name = scorer.name
        self._scorer = scorer
        self._title_of = title_of
        self._rule = rule
        self._clock = clock
        self._known: LRUCache[tuple[str, str], float] = LRUCache(_REMEMBERED)

    @property
    def k(self) -> int:
        return self._rule.k

    def until(self) -> float:
        """Return when a batch that begins now has used its time up, by the clock."""
        return self._clock() + self._rule.seconds

    def reranked(
        self, queries: Sequence[str], answers: Sequence[list[Match]], until: float
    ) -> list[list[Match] | None]:
        """Return each query's answer with its first ``k`` items ordered by the model as well.

        None for those that the time was up for. Raises RerankFailed.
        """
        return [
            self._one(query[:_MAX_CHARS], matches) if self._clock() < until else None
            for query, matches in zip(queries, answers, strict=True)
        ]

    def _one(self, query: str, matches: list[Match]) -> list[Match]:
        first, rest = matches[: self._rule.k], matches[self._rule.k :]
        titles = [self._title_of(match.item_id)[:_MAX_CHARS] for match in first]
        fits = self._fits(query, titles)
        # Never below what it was, so that those behind the first stay behind them.
        scored = [
            msgspec.structs.replace(match, score=match.score + self._rule.weight * fit)
            for match, fit in zip(first, fits, strict=True)
        ]
        return [*sorted(scored, key=lambda match: -match.score), *rest]

    def _fits(self, query: str, titles: Sequence[str]) -> list[float]:
        """Return how well each title fits, 0 to 1."""
        new = [t for t in dict.fromkeys(titles) if (query, t) not in self._known]
        said = self._scorer.scores([(query, title) for title in new]) if new else np.empty(0)
        shares = np.clip((said - _LEAST) / (_MOST - _LEAST), 0, 1)
        fresh = dict(zip(new, shares.tolist(), strict=True))
        fits = [fresh[t] if t in fresh else self._known[query, t] for t in titles]
        self._known.update(((query, title), fit) for title, fit in fresh.items())
        return fits
