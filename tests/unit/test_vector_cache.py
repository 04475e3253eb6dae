"""Vectors of texts that come again are remembered, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import HashEncoder

from models.vector_cache import VectorCache


def encoded(encoder: HashEncoder) -> list[str]:
    return [text for call in encoder.calls for text in call]


def test_a_text_that_comes_again_is_not_encoded_again() -> None:
    encoder = HashEncoder()
    cache = VectorCache(encoder, 10)
    first = cache.encode(["red boots", "tea pot"], "query")
    again = cache.encode(["tea pot", "yarn", "red boots"], "query")
    assert encoded(encoder) == ["red boots", "tea pot", "yarn"]
    np.testing.assert_array_equal(again[[2, 0]], first)
    assert (cache.hits, cache.misses) == (2, 3)


def test_the_vectors_and_their_order_are_the_encoders() -> None:
    texts = ["b", "a", "c", "a", "b"]
    cache = VectorCache(HashEncoder(), 10)
    cache.encode(["c", "d"])
    np.testing.assert_array_equal(cache.encode(texts), HashEncoder().encode(texts))
    assert (cache.dim, cache.encoder_id) == (32, "hash-32")


@pytest.mark.parametrize("size", [0, 5], ids=["cache-off", "cache-on"])
def test_a_text_twice_in_one_call_is_encoded_once(size: int) -> None:
    encoder = HashEncoder()
    vectors = VectorCache(encoder, size).encode(["a", "b", "a"])
    assert encoded(encoder) == ["a", "b"]
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_the_text_not_used_for_longest_makes_room() -> None:
    encoder = HashEncoder()
    cache = VectorCache(encoder, 2)
    for text in ("a", "b", "a", "c"):  # c takes the place of b
        cache.encode([text])
    encoder.calls.clear()
    cache.encode(["a", "c", "b"])
    assert encoded(encoder) == ["b"]


def test_more_texts_than_fit_come_back_right() -> None:
    texts = [f"text {n}" for n in range(20)]
    cache = VectorCache(HashEncoder(), 3)
    for _ in range(2):
        np.testing.assert_array_equal(cache.encode(texts), HashEncoder().encode(texts))


def test_a_query_and_a_passage_are_two_texts() -> None:
    encoder = HashEncoder()
    cache = VectorCache(encoder, 10)
    cache.encode(["a"], "query")
    cache.encode(["a"], "passage")
    assert encoded(encoder) == ["a", "a"]


def test_size_zero_remembers_nothing() -> None:
    encoder = HashEncoder()
    cache = VectorCache(encoder, 0)
    cache.encode(["a"])
    cache.encode(["a"])
    assert encoded(encoder) == ["a", "a"]
    assert (cache.hits, cache.misses) == (0, 2)


def test_what_a_caller_does_to_vectors_stays_with_the_caller() -> None:
    cache = VectorCache(HashEncoder(), 10)
    for _ in range(2):
        cache.encode(["a"])[:] = 0
    np.testing.assert_array_equal(cache.encode(["a"]), HashEncoder().encode(["a"]))


def test_no_texts_give_no_vectors() -> None:
    assert VectorCache(HashEncoder(), 10).encode([]).shape == (0, 32)
