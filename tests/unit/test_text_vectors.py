"""TextVectors: no text is encoded twice, in one run or in two that share a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEncoder

from models.encoder import Side
from stream.evaluate import vectors
from stream.evaluate.vectors import TextVectors
from stream.settings import Settings

SETTINGS = Settings()


class Told(HashEncoder):
    """Says what it was asked to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str], side: Side = "passage") -> np.ndarray:
        self.asked.append(list(texts))
        return super().encode(texts, side)


@pytest.fixture(autouse=True)
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_AT_ONCE", 2)


def test_a_text_is_encoded_once_and_its_vector_is_the_encoders() -> None:
    told, done = Told(), list[tuple[int, int]]()
    encode = TextVectors(on_done=lambda n, of: done.append((n, of)), open_by=lambda _: told)
    found = encode(["a", "b", "a", "c"], SETTINGS)
    assert told.asked == [["a", "b"], ["c"]]
    assert done == [(0, 3), (2, 3)]
    assert np.array_equal(found, HashEncoder().encode(["a", "b", "a", "c"]))
    encode(["c", "b"], SETTINGS)
    assert len(told.asked) == 2
    # What is searched for may have another vector than what is found.
    encode(["c"], SETTINGS, "query")
    assert len(told.asked) == 3


def test_vectors_of_a_run_that_was_cut_off_are_there_for_the_next(tmp_path: Path) -> None:
    TextVectors(tmp_path, open_by=lambda _: Told())(["a", "b", "c"], SETTINGS)
    told = Told()
    found = TextVectors(tmp_path, open_by=lambda _: told)(["d", "c", "a"], SETTINGS)
    assert told.asked == [["d"]]
    assert np.array_equal(found, HashEncoder().encode(["d", "c", "a"]))
    # With other lengths they would be other vectors.
    shorter = SETTINGS.model_copy(update={"encoder_max_tokens": 8})
    TextVectors(tmp_path, open_by=lambda _: told)(["c"], shorter)
    assert told.asked == [["d"], ["c"]]
