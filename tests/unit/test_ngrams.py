from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ngrams import MAX_TOKENS, ngram_rows, ngrams

N_BUCKETS = 1 << 16


def count(text: str) -> int:
    return len(ngrams(text, N_BUCKETS))


@pytest.mark.parametrize(
    ("text", "n"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param(" \n", 0, id="space"),
        pytest.param("good", 1, id="a-word"),
        pytest.param("not worth it", 6, id="words"),
        pytest.param("not worth it!", 9, id="punctuation-counts"),
        pytest.param("不推荐", 6, id="characters"),
        pytest.param("good good good", 3, id="each-once"),
        pytest.param("买的iPhone很好", 12, id="mixed"),
    ],
)
def test_words_characters_and_their_neighbours_count(text: str, n: int) -> None:
    assert count(text) == n


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Not Worth IT", "not worth it", id="case"),
        pytest.param("不推荐！", "不推荐!", id="full-width"),
        pytest.param("not  worth\nit", "not worth it", id="spaces"),
    ],
)
def test_what_means_the_same_is_the_same(one: str, other: str) -> None:
    assert ngrams(one, N_BUCKETS) == ngrams(other, N_BUCKETS)


def test_order_and_negation_count() -> None:
    assert ngrams("good, not bad", N_BUCKETS) != ngrams("bad, not good", N_BUCKETS)
    # "notgood" is no neighbour of "not good".
    assert not set(ngrams("notgood", N_BUCKETS)) & set(ngrams("not good", N_BUCKETS))


def test_of_a_very_long_text_the_beginning_is_read() -> None:
    text = " ".join(f"w{n}" for n in range(3 * MAX_TOKENS))
    assert ngrams(text, N_BUCKETS) == ngrams(text + " and more", N_BUCKETS)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_rows_hold_the_ngrams_of_each_text(texts: list[str]) -> None:
    buckets, pointers = ngram_rows(texts, N_BUCKETS)
    rows = np.split(buckets, pointers[1:-1]) if texts else []
    assert [row.tolist() for row in rows] == [ngrams(text, N_BUCKETS) for text in texts]
    assert all(0 <= bucket < N_BUCKETS for bucket in buckets.tolist())


def test_they_are_those_of_the_models_that_are_out_there() -> None:
    """A model's weights go by bucket: another hash would make nonsense of every folder."""
    assert ngrams("很好! ok", 1 << 19) == [
        12141, 86090, 100145, 191053, 271875, 285874, 340499, 366874, 517620,
    ]  # fmt: skip
