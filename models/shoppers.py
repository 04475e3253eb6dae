"""Profiles of a micro-batch -> shoppers: evidence, taste and candidate lists, found in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import CatalogueView, Source, SourceList, Together
from models.evidence import Evidence, evidence_of
from models.hybrid import HybridRule, Taste
from models.item_index import PADDING, Vectors
from models.profile import Profile
from models.slab import Rows


@dataclass(frozen=True, slots=True)
class Shopper:
    """One profile made ready to rank; ``query`` (dim,) is u of models/hybrid.py."""

    profile: Profile
    evidence: Evidence
    taste: Taste
    query: NDArray[np.float32]
    together: Together
    lists: list[SourceList]

    @property
    def is_blank(self) -> bool:
        """True when nothing speaks for one item before another."""
        return not self.query.any() and not len(self.evidence)


@dataclass(frozen=True, slots=True)
class _Query:
    shopper: int
    source: Source
    vector: NDArray[np.float32]


class Retrieval:
    """Finds, for a micro-batch, what each shopper could be shown."""

    def __init__(self, catalogue: CatalogueView, rule: HybridRule, n_candidates: int) -> None:
        self._catalogue = catalogue
        self._rule = rule
        self._n_candidates = n_candidates

    def shoppers(self, profiles: Sequence[Profile], now_ms: int) -> list[Shopper]:
        """Return one shopper per profile, in order."""
        evidences = self._evidences(profiles)
        tastes = self._tastes(profiles, evidences)
        queries = [
            taste.query(evidence, self._rule)
            for taste, evidence in zip(tastes, evidences, strict=True)
        ]
        lists = self._search(
            [
                query
                for number, of_it in enumerate(zip(evidences, tastes, queries, strict=True))
                for query in _queries(number, *of_it)
            ],
            len(profiles),
        )
        shelves = {region: self._shelf(region, now_ms) for region in {p.region for p in profiles}}
        togethers = self._togethers(evidences)
        return [
            Shopper(
                profile=profile,
                evidence=evidences[number],
                taste=tastes[number],
                query=queries[number],
                together=togethers[number],
                lists=[*lists[number], *shelves[profile.region]],
            )
            for number, profile in enumerate(profiles)
        ]

    def _evidences(self, profiles: Sequence[Profile]) -> list[Evidence]:
        rows = self._catalogue.rows([act.item_id for p in profiles for act in p.items]).tolist()
        evidences, start = [], 0
        for profile in profiles:
            end = start + len(profile.items)
            evidences.append(evidence_of(profile, rows[start:end], self._rule.step_decay))
            start = end
        return evidences

    def _tastes(self, profiles: Sequence[Profile], evidences: Sequence[Evidence]) -> list[Taste]:
        rows = np.concatenate([evidence.rows for evidence in evidences])
        elements = self._catalogue.centred(rows)  # zero where a row is a text's PADDING
        texts = [text for evidence in evidences for text in evidence.texts]
        if texts:
            elements[rows == PADDING] = self._catalogue.centre(
                np.stack(texts), np.ones(len(texts), np.float32)
            )
        sums = self._sums(profiles, elements.shape[1])
        tastes, start = [], 0
        for number, evidence in enumerate(evidences):
            end = start + len(evidence)
            tastes.append(Taste(elements[start:end], sums[0, number], sums[1, number]))
            start = end
        return tastes

    def _sums(self, profiles: Sequence[Profile], dim: int) -> Vectors:
        """Return the centred long and short interests, (2, n_profiles, dim)."""
        none = np.zeros(dim, np.float32)
        sums = [p.long_interest for p in profiles] + [p.short_interest for p in profiles]
        weights = [p.long_weight for p in profiles] + [p.short_weight for p in profiles]
        vectors = np.stack([none if vector is None else vector for vector in sums])
        centred = self._catalogue.centre(vectors, np.asarray(weights, np.float32))
        centred[[vector is None for vector in sums]] = 0
        return centred.reshape(2, len(profiles), dim)

    def _search(self, queries: Sequence[_Query], n_shoppers: int) -> list[list[SourceList]]:
        lists: list[list[SourceList]] = [[] for _ in range(n_shoppers)]
        if queries:
            vectors = np.stack([query.vector for query in queries])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            _, found = self._catalogue.search(vectors, self._n_candidates)
            for query, rows in zip(queries, found, strict=True):
                lists[query.shopper].append(SourceList(query.source, rows[rows != PADDING]))
        return lists

    def _shelf(self, region: str | None, now_ms: int) -> tuple[SourceList, SourceList]:
        k = self._n_candidates
        return (
            SourceList("popular", self._catalogue.popular(k, region, now_ms)),
            SourceList("new_arrival", self._catalogue.new_arrivals(k, now_ms)),
        )

    def _togethers(self, evidences: Sequence[Evidence]) -> list[Together]:
        items = {row for evidence in evidences for row in evidence.rows.tolist()} - {PADDING}
        neighbours = {row: self._catalogue.neighbours(row) for row in items}
        neighbours[PADDING] = (np.empty(0, np.int64), np.empty(0, np.float32))
        return [
            _together([neighbours[row] for row in evidence.rows.tolist()]) for evidence in evidences
        ]


def _queries(
    shopper: int, evidence: Evidence, taste: Taste, query: NDArray[np.float32]
) -> list[_Query]:
    stated = np.asarray([kind == "interest" for kind in evidence.kinds], np.bool_)
    all_stated = len(evidence) > 0 and bool(stated.all())
    wanted: list[tuple[Source, NDArray[np.float32]]] = [
        ("stated_interest" if all_stated else "short_interest", query),
        ("short_interest", taste.short),
        ("long_interest", taste.long),
    ]
    if stated.any() and not all_stated:
        told = evidence.coefficients[stated] @ taste.elements[stated]
        wanted.append(("stated_interest", np.asarray(told, np.float32)))
    return [_Query(shopper, source, vector) for source, vector in wanted if vector.any()]


def _together(of_elements: Sequence[tuple[Rows, NDArray[np.float32]]]) -> Together:
    if not of_elements:
        return Together(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    lengths = [len(rows) for rows, _ in of_elements]
    rows = np.concatenate([rows for rows, _ in of_elements])
    strengths = np.concatenate([strengths for _, strengths in of_elements])
    elements = np.repeat(np.arange(len(of_elements)), lengths)
    return Together(rows, elements, np.minimum(strengths, 1, dtype=np.float32))
