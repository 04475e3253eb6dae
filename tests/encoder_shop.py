"""A shop whose items go together by what no title says, for encoders to learn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.training.encoder import Behaviour
from models.training.examples import next_items, together
from models.training.fine_tuning import HeldOut

N_THEMES, PER_THEME = 6, 6


def titles(seed: int = 0) -> list[str]:
    """Titles of one letter and three others at random; items of a theme are a letter's."""
    rng = np.random.default_rng(seed)
    letters = list("ghijklmnopqrstuvwxyz")
    return [
        " ".join(["abcdef"[n % N_THEMES], *rng.choice(letters, 3)])
        for n in range(N_THEMES * PER_THEME)
    ]


def shop_behaviour(n_users: int = 60, seed: int = 0) -> Behaviour:
    """Shoppers who each take five items of one theme; the last of each is held out."""
    rng = np.random.default_rng(seed)
    groups, asked = [], []
    for user in range(n_users):
        of_theme = np.arange(PER_THEME) * N_THEMES + user % N_THEMES
        taken = rng.permutation(of_theme)[:5].tolist()
        groups += together(next_items(taken[:-1], 0.7))
        asked += next_items(taken, 0.7, first=4)
    texts = titles(seed)
    return Behaviour(texts, [False] * len(texts), groups, HeldOut(asked, np.arange(len(texts))))


class Notes:
    """A Journal that keeps all; it breaks off at a step where it is told to."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.losses: list[float] = []
        self.rankings: dict[int, float] = {}
        self._breaks_at = breaks_at

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        if "loss" in figures:
            if step == self._breaks_at:
                raise KeyboardInterrupt
            self.losses.append(figures["loss"])
        else:
            self.rankings[step] = figures["ndcg_at_10"]

    def close(self) -> None:
        pass
