"""Profiles of a micro-batch -> shoppers, and what each could be shown, found in one go."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.candidates import CatalogueView, Foreseen, Found, Shelf, Together
from models.evidence import Evidence, evidences_of
from models.hybrid import HybridRule
from models.item_index import PADDING, Vectors
from models.profile import Profile
from models.shoppers import Shoppers
from models.slab import Rows
from models.user_model import UserModel

#: Popular and new items looked at for each shopper: their small gain settles near-ties only, and
#: what a short list lacks is filled from all that is popular.
_SHELF = 50

_NO_ROWS: Rows = np.empty(0, np.int64)
_NO_VALUES: NDArray[np.float32] = np.empty(0, np.float32)


class Retrieval:
    """Finds, for a micro-batch, what each shopper could be shown.

    One query a shopper is enough: u holds the history, the searches, the stated and both kept
    interests in the proportions of the score, so the index finds by it whatever their sum puts
    first. A search by one of them alone would find only items that lose to those.
    """

    def __init__(
        self,
        catalogue: CatalogueView,
        rule: HybridRule,
        n_candidates: int,
        user_model: UserModel | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._rule = rule
        self._n_candidates = n_candidates
        self._user_model = user_model

    def shoppers(self, profiles: Sequence[Profile]) -> Shoppers:
        """Return the shoppers of some profiles, in order."""
        rule, evidences = self._rule, self._evidences(profiles)
        lengths = [len(evidence) for evidence in evidences]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        coefficients = np.concatenate([evidence.coefficients for evidence in evidences])
        rows = np.concatenate([evidence.rows for evidence in evidences])
        vectors = self._vectors(rows, evidences)
        long, short = self._interests(profiles, vectors.shape[1])
        told = _told(coefficients, vectors, starts)
        # Where the history says nothing, the interests speak in its place.
        is_told = told.any(axis=1)
        half = rule.text_share / 2
        long_shares = np.where(is_told, rule.long_interest, half).astype(np.float32)
        short_shares = np.where(is_told, rule.short_interest, half).astype(np.float32)
        reach = np.array([evidence.reach for evidence in evidences], np.float32)
        lasting = long_shares[:, None] * long + short_shares[:, None] * short
        return Shoppers(
            profiles=profiles,
            evidences=evidences,
            starts=starts,
            owners=np.repeat(np.arange(len(profiles)), lengths),
            rows=rows,
            coefficients=coefficients,
            vectors=vectors,
            long=long,
            short=short,
            queries=np.float32(rule.text_share) * told + reach[:, None] * lasting,
            long_shares=long_shares,
            short_shares=short_shares,
            reach=reach,
        )

    def found(self, shoppers: Shoppers) -> Found:
        """Return what the index holds nearest to each shopper's query."""
        lengths = np.linalg.norm(shoppers.queries, axis=1)
        asked = np.flatnonzero(lengths)
        # Without a query every text part is 0.
        beyond = np.zeros(len(shoppers), np.float32)
        if not len(asked):
            return Found(_NO_ROWS, _NO_ROWS, _NO_VALUES, beyond)
        units = shoppers.queries[asked] / lengths[asked, None]
        cosines, rows = self._catalogue.search(units, self._n_candidates)
        is_found = rows != PADDING
        text = cosines * lengths[asked, None]
        n_found = is_found.sum(axis=1)
        last = text[np.arange(len(asked)), np.maximum(n_found - 1, 0)]
        beyond[asked] = np.where(n_found > 0, last, 0)
        return Found(np.repeat(asked, n_found), rows[is_found], text[is_found], beyond)

    def foreseen(self, shoppers: Shoppers) -> Foreseen:
        """Return what the user model finds for each shopper; nothing without one."""
        model = self._user_model
        if model is None:
            return Foreseen(_NO_ROWS, _NO_ROWS, np.zeros((len(shoppers), 0), np.float32))
        vectors = model.shoppers(self._histories(shoppers, model.history_items))
        asked = np.flatnonzero(vectors.any(axis=1))
        _, rows = self._catalogue.search_learnt(vectors[asked], self._n_candidates)
        is_found = rows != PADDING
        return Foreseen(np.repeat(asked, is_found.sum(axis=1)), rows[is_found], vectors)

    def shelf(self, shoppers: Shoppers, now_ms: int) -> Shelf:
        """Return what is shown to anyone of each shopper's region."""
        k = min(self._n_candidates, _SHELF)
        arrivals = self._catalogue.new_arrivals(k, now_ms)
        regions = [profile.region for profile in shoppers.profiles]
        popular = {region: self._catalogue.popular(k, region, now_ms) for region in set(regions)}
        return Shelf([popular[region] for region in regions], arrivals)

    def together(self, shoppers: Shoppers) -> Together:
        """Return the neighbours of every element, each with its trend."""
        rows, elements, strengths = self._catalogue.neighbours(shoppers.rows)
        if self._rule.trend:
            strengths = strengths * self._catalogue.trends(rows, self._rule.trend)
        return Together(rows, elements, strengths)

    def _histories(self, shoppers: Shoppers, n_items: int) -> list[Vectors]:
        """Return the learnt vectors of the newest items that each shopper is for, newest last."""
        rows_of = [
            self._catalogue.rows(
                [act.item_id for act in profile.items if act.weight > 0][-n_items:]
            )
            for profile in shoppers.profiles
        ]
        learnt = self._catalogue.learnt(np.concatenate(rows_of))
        known: NDArray[np.bool_] = np.asarray(learnt.any(axis=1))
        ends = np.cumsum([len(rows) for rows in rows_of]).tolist()
        return [learnt[start:end][known[start:end]] for start, end in pairwise([0, *ends])]

    def _evidences(self, profiles: Sequence[Profile]) -> list[Evidence]:
        rows = self._catalogue.rows([act.item_id for p in profiles for act in p.items])
        return evidences_of(profiles, rows, self._rule.step_decay)

    def _vectors(self, rows: Rows, evidences: Sequence[Evidence]) -> Vectors:
        """Return the centred vectors of the elements, items and texts."""
        vectors = self._catalogue.centred(rows)  # zero where a row is a text's PADDING
        texts = [text for evidence in evidences for text in evidence.texts]
        if texts:
            weights = np.ones(len(texts), np.float32)
            vectors[rows == PADDING] = self._catalogue.centre(np.stack(texts), weights)
        return vectors

    def _interests(self, profiles: Sequence[Profile], dim: int) -> Vectors:
        """Return the centred long and short interests, (2, n_profiles, dim)."""
        sums = [p.long_interest for p in profiles] + [p.short_interest for p in profiles]
        weights = [p.long_weight for p in profiles] + [p.short_weight for p in profiles]
        vectors = np.zeros((len(sums), dim), np.float32)
        for number, vector in enumerate(sums):
            if vector is not None:
                vectors[number] = vector
        centred = self._catalogue.centre(vectors, np.array(weights, np.float32))
        # A sum with more against than for names what to avoid; its opposite is no interest.
        centred[np.array(weights) <= 0] = 0
        return centred.reshape(2, len(profiles), dim)


def _told(
    coefficients: NDArray[np.float32], vectors: Vectors, starts: NDArray[np.int64]
) -> Vectors:
    """Return by shopper the sum of the elements that speak for something, (b, dim)."""
    told = np.zeros((len(starts) - 1, vectors.shape[1]), np.float32)
    for_it = coefficients.clip(min=0)
    for shopper, (start, end) in enumerate(pairwise(starts.tolist())):
        told[shopper] = for_it[start:end] @ vectors[start:end]
    return told
