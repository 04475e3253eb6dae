"""Vectors in few bytes: a final one in four bits a dimension, a growing sum in eight.

Four bits are for what is rounded once, like the vector of a text. A sum is added to for years:
rounding all of it every time would drown it in its own errors, or freeze it where an act is
smaller than half a step. So the steps shrink with the sum as it decays, what is stored stays as it
is, and only what is added is rounded, up or down by turns so that nothing small is always lost.
All of it is a function of the values given: a repeat gives the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

#: Dimensions that share a step size; the last block of a vector may be shorter.
BLOCK = 64
#: Where the 16 levels end, in root mean squares: least error for values spread like a bell.
_REACH = 2.6
#: A block is given new steps when its largest value is beyond 127 of them or below ``_COARSE``.
_LARGEST, _ROOM, _COARSE = 127, 100, 25
#: Step sizes of the blocks are powers of the fourth root of two, times the vector's unit.
_PER_OCTAVE = 4
#: By their numbers.
SIZES = np.exp2(np.arange(256) / _PER_OCTAVE)
#: Where the steps of an octave begin, for what is told by a mantissa: exact, as a logarithm is not.
QUARTERS = np.exp2(np.arange(-_PER_OCTAVE, 0) / _PER_OCTAVE)
#: Numbers spread evenly over 0..1, whichever of them follow on each other; below 1 in float32 too.
N_TURNS = 4096
TURNS = np.modf(np.arange(2 * N_TURNS) * (sqrt(5) - 1) / 2)[0].astype(np.float32)


def to_four_bits(vector: Vector) -> bytes:
    """Return dim / 2 + 2 bytes, dim rounded up to even; the zero vector comes back as zero."""
    scale = _REACH / 8 * float(np.sqrt(np.mean(np.square(vector, dtype=np.float64))))
    (step,) = struct.unpack("<e", struct.pack("<e", scale))
    is_odd = len(vector) % 2
    levels = np.zeros(len(vector) + is_odd, np.uint8)
    if step:
        levels[: len(vector)] = np.clip(np.floor(vector / np.float32(step)), -8, 7) + 8
    # The sign, which a step has no use for, says that the last level is none.
    pairs = levels[::2] | levels[1::2] << 4
    return struct.pack("<e", -step if is_odd else step) + pairs.tobytes()


def from_four_bits(packed: bytes) -> Vector:
    """Return the vector, shape (dim,), that ``to_four_bits`` packed."""
    (step,) = struct.unpack_from("<e", packed)
    pairs = np.frombuffer(packed, np.uint8, offset=2)
    levels = np.empty(2 * len(pairs), np.float32)
    levels[::2], levels[1::2] = pairs & 15, pairs >> 4
    if np.signbit(step):
        levels = levels[:-1]
    return np.asarray((levels - 7.5) * np.float32(abs(step)), np.float32)


@dataclass(frozen=True, slots=True)
class PackedSum:
    """A sum of vectors: ``values`` int8, (dim,); ``steps`` uint8, one per block; ``unit`` float32.

    Block b of the sum is ``values * unit * 2 ** (steps[b] / 4)``.
    """

    values: bytes
    steps: bytes
    unit: float

    def array(self) -> Vector:
        """Return the sum, shape (dim,)."""
        values = np.frombuffer(self.values, np.int8)
        return np.asarray(values * _spread(self._step_sizes(), len(values)), np.float32)

    def decayed(self, factor: float) -> PackedSum:
        """Return the sum times a factor above 0; the values stay as they are."""
        return PackedSum(self.values, self.steps, float(np.float32(self.unit * factor)))

    def _step_sizes(self) -> NDArray[np.float64]:
        return np.asarray(self.unit * SIZES[np.frombuffer(self.steps, np.uint8)], np.float64)

    @classmethod
    def of(cls, added: Vector, turn: int) -> PackedSum:
        """Return the sum that holds one vector."""
        n_blocks = -(-len(added) // BLOCK)
        return cls(bytes(len(added)), bytes(n_blocks), 0.0).plus(added, turn)

    def plus(self, added: Vector, turn: int) -> PackedSum:
        """Add a vector, shape (dim,); ``turn`` is any number that differs from time to time."""
        turns = _turns(turn, len(added))
        if self.unit <= 0:
            return self._anew(added, turns)
        spread = _spread(self._step_sizes(), len(added))
        values = np.frombuffer(self.values, np.int8)
        summed = values + np.floor(added / spread + turns)
        largest = _largest(summed)
        if largest.max() <= _LARGEST and largest.min() >= _COARSE:
            return PackedSum(summed.astype(np.int8).tobytes(), self.steps, self.unit)
        return self._anew(added, turns)

    def _anew(self, added: Vector, turns: Vector) -> PackedSum:
        """Add a vector, and give new steps to the blocks that need them."""
        dim = len(added)
        values, sizes = np.frombuffer(self.values, np.int8), self._step_sizes()
        exact = values * _spread(sizes, dim) + added
        largest = _largest(exact)
        unit = self.unit if self.unit > 0 else float(np.float32(largest.max() / _ROOM))
        if unit <= 0:
            return self
        # A little less than fits, for what rounding up adds.
        is_unfit = (largest > (_LARGEST - 1) * sizes) | (largest < _COARSE * sizes)
        mantissas, octaves = np.frexp(np.maximum(largest, 1e-30) / (_ROOM * unit))
        fit = _PER_OCTAVE * (octaves.astype(np.int64) - 1) + np.searchsorted(QUARTERS, mantissas)
        old = np.frombuffer(self.steps, np.uint8).astype(np.int64)
        exponents = np.where(is_unfit, fit, old)
        # What is far below the largest block is nothing beside it.
        exponents = np.maximum(exponents, exponents.max() - 255)
        lowest = int(exponents.min())
        unit = float(np.float32(unit * 2.0 ** (lowest / _PER_OCTAVE)))
        renewed = PackedSum(b"", (exponents - lowest).astype(np.uint8).tobytes(), unit)
        is_new = _spread(is_unfit, dim)
        rest = np.where(is_new, exact, added) / _spread(renewed._step_sizes(), dim)
        rounded = np.where(is_new, 0, values) + np.floor(rest + turns)
        held = np.clip(rounded, -_LARGEST, _LARGEST).astype(np.int8)
        return PackedSum(held.tobytes(), renewed.steps, unit)


def _largest(vector: NDArray[Any]) -> NDArray[Any]:
    """Return the largest absolute value of each block."""
    return np.asarray(np.maximum.reduceat(np.abs(vector), np.arange(0, len(vector), BLOCK)))


def _turns(turn: int, dim: int) -> Vector:
    start = turn % N_TURNS
    if dim <= N_TURNS:
        return TURNS[start : start + dim]
    return np.resize(TURNS[start : start + N_TURNS], dim)


def _spread(of_blocks: NDArray[Any], dim: int) -> NDArray[Any]:
    return np.repeat(of_blocks, BLOCK)[:dim]
