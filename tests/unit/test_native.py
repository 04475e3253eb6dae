"""Native code against numpy, where it is built; what ranks lists is in test_recommender.py."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pytest

from models import native

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


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    assert not native.is_on()
    assert native.widened(np.ones((2, 3), np.float16)).dtype == np.float32
