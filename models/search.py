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
from models.matches import FoundBy, Match, Query
from models.query_mean import QueryMean
from models.slab import Rows
from models.text_index import Found, TextIndex

#: Items that speak for a query are at most one in so many of those looked at: in a shop of ten
#: things they would be half of it.
_SPEAKS_ONE_IN = 10
_FOUND_BY: tuple[FoundBy, ...] = ("words", "meaning", "both")


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
        pool = _in_order(near, found.rows)
        if not len(pool):
            return []
        vectors = self._catalogue.centred(pool)
        rest = np.zeros(len(pool), np.float32)
        matched, meant = np.searchsorted(pool, found.rows), np.searchsorted(pool, near)
        rest[matched] = self._rule.words * found.scores - self._rule.heads * ~found.is_named
        scores = vectors @ self._told(vectors, unit, rest) + rest
        if query.interest is not None and self._rule.interest:
            scores += np.float32(self._rule.interest) * _moved(vectors @ query.interest, matched)
        sources = np.zeros(len(pool), np.int8)
        sources[meant] = 1
        sources[matched] *= 2
        best = _best_first(scores, k)
        return [
            Match(item_id, score, _FOUND_BY[source])
            for item_id, score, source in zip(
                self._catalogue.item_ids(pool[best]),
                scores[best].tolist(),
                sources[best].tolist(),
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
        first = _best_first(vectors @ unit + rest, n_speakers)
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


def _in_order(near: Rows, found: Rows) -> Rows:
    """Return the rows that are in either, rising; np.union1d takes several times as long."""
    rows = np.sort(np.concatenate([near, found]))
    is_first = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    return rows[is_first]


def _best_first(scores: NDArray[np.float32], k: int) -> Rows:
    """Return the places of the k largest, of equal ones the first: what is sorted are those k."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    last = len(scores) - k
    among = np.flatnonzero(scores >= np.partition(scores, last)[last])
    return among[np.argsort(-scores[among], kind="stable")[:k]]


def _moved(cosines: NDArray[np.float32], matched: Rows) -> NDArray[np.float32]:
    """Return what an interest does to each score, (n,): the ``matched`` rise, the others fall.

    Both by as much as it tells them apart; so no liking brings what shares no word with the query
    before what does, unless it was there without.
    """
    moved = (cosines - 1) / 2
    moved[matched] += 1
    return np.asarray(moved, np.float32)
