"""Native code against numpy, where it is built; what ranks lists is in test_recommender.py."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pytest

from models import native
from models.evidence import ElementKind, Evidence
from models.item_index import PADDING
from models.item_vectors import _kept_only
from models.reasons import MOST, tell

needs_native = pytest.mark.skipif(not native.is_on(), reason="native code was not built")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_where_there_is_a_compiler_native_code_was_built() -> None:
    """What failed to build is left out without a word, and the tests of it with it."""
    for module in ("models._native", "stream.core._native"):
        assert importlib.util.find_spec(module) is not None, module


@needs_native
def test_every_half_float_is_widened_as_numpy_widens_it() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(64, -1)
    wide = native.widened(halves)
    assert wide.dtype == np.float32
    assert np.array_equal(wide.view(np.uint32), halves.astype(np.float32).view(np.uint32))


@needs_native
@pytest.mark.parametrize("shape", [(0, 384), (3, 0), (7, 5)])
def test_any_shape_is_widened(shape: tuple[int, int]) -> None:
    halves = np.ones(shape, np.float16)
    assert np.array_equal(native.widened(halves), np.ones(shape, np.float32))
    assert np.array_equal(native.widened(halves[::2]), np.ones(shape, np.float32)[::2])


@needs_native
def test_items_are_told_in_the_same_words_and_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    kinds: tuple[ElementKind, ...] = ("item", "interest", "search")
    rows, coefficients = np.arange(3), np.ones(3, np.float32)
    evidences = [
        Evidence(kinds[:n], tuple("abc"[:n]), rows[:n], coefficients[:n], (), 1.0)
        for n in (3, 0, 2)
    ]
    # By the widest of them: 3 by text, 3 by pairs, 4 that are of no element.
    columns = rng.integers(0, 10, (500, MOST))
    columns[200:400] = rng.integers(6, 10, (200, MOST))
    columns[400:] = rng.choice([0, 1, 3, 4, 6, 9], (100, MOST))
    # Among them all that lie half way between two numbers of so many digits.
    shares = -np.sort(-rng.integers(0, 1 << 12, (500, MOST)) / np.float32(1 << 12)).astype(
        np.float32
    )
    scores = rng.normal(0, 1, 500).astype(np.float32)
    scores[::3] = rng.integers(-(1 << 9), 1 << 9, 167) / np.float32(1 << 7)
    told = [str(n) for n in range(500)], scores, columns, shares, [0, 200, 400, 500], evidences
    natively = tell(*told)
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    assert natively == tell(*told)
    every = [item.reasons[0].kind for items in natively for item in items]
    assert len(set(every)) == 8


@needs_native
@pytest.mark.parametrize("k", [1, 5, 12])
def test_of_what_an_index_found_the_same_is_kept(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = rng.permuted(np.tile(np.arange(-2, 8), (20, 1)), axis=1).clip(min=PADDING)
    scores, allowed = rng.random((20, 10), np.float32), rng.random(8) < 0.6
    natively = _kept_only(scores, rows, allowed, k)
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    for mine, theirs in zip(natively, _kept_only(scores, rows, allowed, k), strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(mine, theirs)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    assert not native.is_on()
    assert native.widened(np.ones((2, 3), np.float16)).dtype == np.float32
