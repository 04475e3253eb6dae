"""Profiles of a micro-batch -> shoppers: evidence, taste and candidates, found in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import CatalogueView, Found, Shelf, Together
from models.evidence import Evidence, evidence_of
from models.hybrid import HybridRule, Taste
from models.item_index import PADDING, Vectors
from models.profile import Profile
from models.slab import Rows

_NO_ROWS: Rows = np.empty(0, np.int64)
_NO_VALUES: NDArray[np.float32] = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Shopper:
    """One profile made ready to rank; ``query`` (dim,) is u of models/hybrid.py."""

    profile: Profile
    evidence: Evidence
    taste: Taste
    query: NDArray[np.float32]
    found: Found
    together: Together
    shelf: Shelf

    @property
    def is_blank(self) -> bool:
        """True when nothing speaks for one item before another."""
        return not self.query.any() and not len(self.evidence)

    @property
    def highest_row(self) -> int:
        """Return the largest row of any candidate, PADDING when there is none."""
        of_it = (self.found.rows, self.together.rows, self.shelf.popular, self.shelf.new_arrival)
        return max(int(rows.max(initial=PADDING)) for rows in of_it)


class Retrieval:
    """Finds, for a micro-batch, what each shopper could be shown.

    One query a shopper is enough: u holds the history, the searches, the stated and both kept
    interests in the proportions of the score, so the index finds by it whatever their sum puts
    first. A search by one of them alone would find only items that lose to those.
    """

    def __init__(self, catalogue: CatalogueView, rule: HybridRule, n_candidates: int) -> None:
        self._catalogue = catalogue
        self._rule = rule
        self._n_candidates = n_candidates

    def shoppers(self, profiles: Sequence[Profile], now_ms: int) -> list[Shopper]:
        """Return one shopper per profile, in order."""
        evidences = self._evidences(profiles)
        tastes = self._tastes(profiles, evidences)
        queries = np.stack(
            [
                taste.query(evidence, self._rule)
                for taste, evidence in zip(tastes, evidences, strict=True)
            ]
        )
        shelves = {region: self._shelf(region, now_ms) for region in {p.region for p in profiles}}
        founds, togethers = self._found(queries), self._togethers(evidences)
        return [
            Shopper(
                profile=profile,
                evidence=evidences[number],
                taste=tastes[number],
                query=queries[number],
                found=founds[number],
                together=togethers[number],
                shelf=shelves[profile.region],
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
        # A sum with more against than for names what to avoid; its opposite is no interest.
        centred[np.asarray(weights) <= 0] = 0
        return centred.reshape(2, len(profiles), dim)

    def _found(self, queries: Vectors) -> list[Found]:
        lengths = np.linalg.norm(queries, axis=1)
        asked = np.flatnonzero(lengths)
        # Without a query every text part is 0.
        found = [Found(_NO_ROWS, _NO_VALUES, 0.0)] * len(queries)
        if len(asked):
            units = queries[asked] / lengths[asked, None]
            cosines, rows = self._catalogue.search(units, self._n_candidates)
            for number, of_it, cosine in zip(asked.tolist(), rows, cosines, strict=True):
                text = cosine[of_it != PADDING] * lengths[number]
                beyond = float(text[-1]) if len(text) else 0.0
                found[number] = Found(of_it[of_it != PADDING], text, beyond)
        return found

    def _shelf(self, region: str | None, now_ms: int) -> Shelf:
        k = self._n_candidates
        return Shelf(
            popular=self._catalogue.popular(k, region, now_ms),
            new_arrival=self._catalogue.new_arrivals(k, now_ms),
        )

    def _togethers(self, evidences: Sequence[Evidence]) -> list[Together]:
        items = {row for evidence in evidences for row in evidence.rows.tolist()} - {PADDING}
        neighbours = {row: self._catalogue.neighbours(row) for row in items}
        neighbours[PADDING] = (_NO_ROWS, _NO_VALUES)
        return [
            _together([neighbours[row] for row in evidence.rows.tolist()]) for evidence in evidences
        ]


def _together(of_elements: Sequence[tuple[Rows, NDArray[np.float32]]]) -> Together:
    if not of_elements:
        return Together(_NO_ROWS, _NO_ROWS, _NO_VALUES)
    lengths = [len(rows) for rows, _ in of_elements]
    rows = np.concatenate([rows for rows, _ in of_elements])
    strengths = np.concatenate([strengths for _, strengths in of_elements])
    return Together(rows, np.repeat(np.arange(len(of_elements)), lengths), strengths)
