"""SentimentModel: a review's text and its vector -> how likely its writer is content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Polarity = Literal["positive", "mixed", "negative"]


def polarity(content: float) -> Polarity:
    """Return what a probability comes to, where a word must do."""
    return "positive" if content > 2 / 3 else "negative" if content < 1 / 3 else "mixed"


class SentimentModel(Protocol):
    """What reads reviews; ``encoder_id`` names the only encoder whose vectors it can read."""

    @property
    def name(self) -> str: ...

    @property
    def encoder_id(self) -> str: ...

    def content(self, texts: Sequence[str], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability that each text's writer is content, shape (len(texts),).

        ``vectors`` are the encoder's of the same texts, shape (len(texts), dim).
        """
