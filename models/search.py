"""ItemSearch: queries -> ranked items, by their words and by what they mean.

A convex combination of cosine and of BM25 over the most it could be, rather than of ranks (Bruch,
Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023): a rank does not
say that the first item matches every word and the second none. The best items of that then speak
for the query (pseudo-relevance feedback, after Rocchio): a query is two words, and they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.item_index import PADDING, Vectors
from models.matches import Match, Query
from models.query_mean import QueryMean
from models.slab import Rows
from models.text_index import Found, TextIndex

#: Items that speak for a query are at most one in so many of those looked at: in a shop of ten
#: things they would be half of it.
_SPEAKS_ONE_IN = 10


class CatalogueView(Protocol):
    """What is read of a catalogue (models.catalogue.Catalogue)."""

    @property
    def dim(self) -> int: ...
    def item_ids(self, rows: Rows) -> list[str]: ...
    def recommendable(self, rows: Rows) -> NDArray[np.bool_]: ...
    def centred(self, rows: Rows) -> Vectors: ...
    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]: ...


@dataclass(frozen=True, slots=True)
class SearchRule:
    """How the parts of a score weigh: ``words`` and ``interest`` beside a cosine; ``feedback`` is
    the share of the cosine that the best ``speakers`` have, in place of the query. ``heads`` is
    what an item loses whose title has a word of the query, but as what the thing is for or like:
    of who seeks a laptop, laptop cases."""

    words: float = 0.2
    feedback: float = 0.5
    speakers: int = 10
    interest: float = 0.0
    heads: float = 0.0


class ItemSearch:
    """Ranks a catalogue for queries. Used by one thread; all it keeps is the mean of queries."""

    name = "search-1"

    def __init__(
        self,
        catalogue: CatalogueView,
        texts: TextIndex,
        rule: SearchRule,
        n_candidates: int = 200,
    ) -> None:
        """``n_candidates`` are looked at by meaning, and as many by words."""
        self._catalogue = catalogue
        self._texts = texts
        self._rule = rule
        self._n_candidates = n_candidates
        self._mean = QueryMean(catalogue.dim)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Match]]:
        """Return up to k items per query, best first: only such as may be recommended now."""
        if not queries:
            return []
        units = self._mean.centred(np.stack([query.vector for query in queries]))
        _, nearest = self._catalogue.search(units, self._n_candidates)
        return [
            self._ranked(query, unit, rows[rows != PADDING], k)
            for query, unit, rows in zip(queries, units, nearest, strict=True)
        ]

    def _ranked(self, query: Query, unit: NDArray[np.float32], near: Rows, k: int) -> list[Match]:
        found = self._by_words(query.text)
        pool = np.union1d(near, found.rows)
        if not len(pool):
            return []
        vectors = self._catalogue.centred(pool)
        rest = np.zeros(len(pool), np.float32)
        matched = np.searchsorted(pool, found.rows)
        rest[matched] = self._rule.words * found.scores - self._rule.heads * ~found.is_named
        scores = vectors @ self._told(vectors, unit, rest) + rest
        if query.interest is not None and self._rule.interest:
            scores += np.float32(self._rule.interest) * _moved(vectors @ query.interest, matched)
        best = np.argsort(-scores, kind="stable")[:k]
        by_words, by_meaning = np.isin(pool[best], found.rows), np.isin(pool[best], near)
        return [
            Match(item_id, score, "words" if not meant else "both" if worded else "meaning")
            for item_id, score, worded, meant in zip(
                self._catalogue.item_ids(pool[best]),
                scores[best].tolist(),
                by_words.tolist(),
                by_meaning.tolist(),
                strict=True,
            )
        ]

    def _told(
        self, vectors: Vectors, unit: NDArray[np.float32], rest: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return what is sought, (dim,): the query and the items that speak for it."""
        n_speakers = min(self._rule.speakers, len(vectors) // _SPEAKS_ONE_IN)
        if not n_speakers:
            return unit
        first = np.argsort(-(vectors @ unit + rest), kind="stable")[:n_speakers]
        mean = vectors[first].mean(axis=0)
        share = np.float32(self._rule.feedback)
        told = (1 - share) * unit + share * mean / max(float(np.linalg.norm(mean)), 1e-6)
        return np.asarray(told, np.float32)

    def _by_words(self, text: str) -> Found:
        """Return what matches by words and may be shown."""
        n_asked = self._n_candidates
        while True:
            found = self._texts.search(text, n_asked)
            allowed = self._catalogue.recommendable(found.rows)
            # Many that match may be sold out.
            if len(found.rows) < n_asked or allowed.sum() >= self._n_candidates // 2:
                rows, scores, is_named = found
                return Found(rows[allowed], scores[allowed], is_named[allowed])
            n_asked *= 4


def _moved(cosines: NDArray[np.float32], matched: Rows) -> NDArray[np.float32]:
    """Return what an interest does to each score, (n,): the ``matched`` rise, the others fall.

    Both by as much as it tells them apart; so no liking brings what shares no word with the query
    before what does, unless it was there without.
    """
    moved = (cosines - 1) / 2
    moved[matched] += 1
    return np.asarray(moved, np.float32)
