"""What rounding may cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.packed_vector import BLOCK, PackedSum, from_four_bits, to_four_bits

dims = st.sampled_from([1, 2, 3, 8, 64, 65, 130, 384])
seeds = st.integers(0, 2**32)


def unit_vectors(seed: int, n: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@given(seeds, dims)
def test_four_bits_keep_the_shape(seed, dim):
    [vector] = unit_vectors(seed, 1, dim)
    packed = to_four_bits(vector)
    assert len(packed) == 2 + (dim + 1) // 2
    assert from_four_bits(packed).shape == (dim,)
    assert to_four_bits(vector) == packed


@given(seeds)
def test_four_bits_keep_the_direction(seed):
    [vector] = unit_vectors(seed, 1, 384)
    assert cosine(from_four_bits(to_four_bits(vector)), vector) > 0.985


def test_four_bits_of_nothing_are_nothing():
    assert not from_four_bits(to_four_bits(np.zeros(5, np.float32))).any()


@given(seeds, dims, st.integers(0, 10**6))
def test_one_addition_errs_by_less_than_two_hundredths_of_the_largest_in_the_block(seed, dim, turn):
    first, second = unit_vectors(seed, 2, dim)
    held = PackedSum.of(first, turn)
    exact = held.array() + second
    error = np.abs(held.plus(second, turn + 1).array() - exact)
    for start in range(0, dim, BLOCK):
        block = slice(start, start + BLOCK)
        # Steps are as they were while they fit, so the larger of the two blocks sets them.
        largest = max(np.abs(exact[block]).max(), np.abs(held.array()[block]).max())
        assert error[block].max() <= 0.02 * largest + 1e-7


@given(seeds, st.floats(1e-6, 1.0))
def test_to_decay_costs_no_accuracy(seed, factor):
    [vector] = unit_vectors(seed, 1, 384)
    held = PackedSum.of(vector, 0)
    np.testing.assert_allclose(held.decayed(factor).array(), held.array() * factor, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.001, 0.02, 0.5], ids=["tiny", "impressions", "clicks"])
def test_what_is_less_than_half_a_step_is_not_lost(weight):
    towards, large = unit_vectors(1, 2, 384)
    held, exact = PackedSum.of(100 * large, 0), 100 * large
    for turn in range(2000):
        held, exact = held.plus(weight * towards, 7 * turn), exact + weight * towards
    drawn = float((held.array() - 100 * large) @ towards)
    assert drawn == pytest.approx(2000 * weight, rel=0.25, abs=1.0)


@given(seeds, st.floats(1e-30, 1e30))
def test_a_sum_may_grow_and_shrink_without_end(seed, scale):
    first, second = unit_vectors(seed, 2, 130)
    held = PackedSum.of(first, 1).plus(np.float32(scale) * second, 2).plus(first, 3)
    exact = 2.0 * first + np.float32(scale) * second.astype(np.float64)
    assert np.isfinite(held.array()).all()
    assert cosine(held.array().astype(np.float64), exact) > 0.999


def test_a_sum_of_nothing_is_nothing_and_takes_what_comes():
    nothing = PackedSum.of(np.zeros(70, np.float32), 1)
    assert not nothing.array().any()
    [vector] = unit_vectors(3, 1, 70)
    assert cosine(nothing.plus(vector, 2).array(), vector) > 0.9999


@given(seeds, st.floats(0.9, 0.99))
def test_a_block_that_shrinks_is_given_finer_steps(seed, share):
    """Else what is left after a large interest was taken back would stay as coarse as that was."""
    [vector] = unit_vectors(seed, 1, 384)
    left = PackedSum.of(vector, 0).plus(-share * vector, 1)
    values = np.abs(np.frombuffer(left.values, np.int8).astype(int)).reshape(-1, BLOCK)
    assert (values.max(axis=1) >= 25).all()
