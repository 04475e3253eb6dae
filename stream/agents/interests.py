"""Interests: a user's state -> the one centred vector that a search may be weighed by."""

from __future__ import annotations

import numpy as np

from models.catalogue import Catalogue
from stream.core.drafts import UserDraft
from stream.core.profiles import profiles_of
from stream.core.user_state import Rules, Vector


class Interests:
    """Looks up what users were lately and lastingly interested in."""

    def __init__(self, catalogue: Catalogue, rules: Rules) -> None:
        self._catalogue = catalogue
        self._rules = rules

    def of(self, draft: UserDraft, now_ms: int) -> Vector | None:
        """Return a user's interest, unit, (dim,); None without one, or where profiling is not
        wanted."""
        if not draft.publishable():
            return None
        [profile] = profiles_of([draft.state], self._catalogue.raw_vectors, now_ms, self._rules)
        kept = [
            (interest, weight)
            for interest, weight in (
                (profile.long_interest, profile.long_weight),
                (profile.short_interest, profile.short_weight),
            )
            # A sum with more against than for names what to avoid; its opposite is no interest.
            if interest is not None and weight > 0
        ]
        if not kept:
            return None
        centred = self._catalogue.centre(
            np.stack([interest for interest, _ in kept]),
            np.array([weight for _, weight in kept], np.float32),
        ).sum(axis=0)
        length = float(np.linalg.norm(centred))
        return np.asarray(centred / length, np.float32) if length > 0 else None
