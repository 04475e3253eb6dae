"""HashedIds: a set of ids in few bytes that never forgets one, and may take others for one.

Ids are kept as the leading bits of a hash: as a sorted list while there are few, as a bitmap when
there are many. Fewer bits take fewer bytes and let more strangers in; dropping bits of a union is
the union of the sets with bits dropped, so neither order nor repeats matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from models import native

Hashes = NDArray[np.uint32]

#: Bits of a hash that are kept, from fine to coarse; a list down to 16, a bitmap below.
FINEST = 24
_RUNGS = (FINEST, 16, 12, 11, 10, 9, 8)
_LISTED = 16


def hash_of(item_id: str) -> int:
    """Return a hash of FINEST bits."""
    # A check sum alone differs by little between ids that do: the product spreads it.
    return (crc32(item_id.encode()) * 0x9E3779B1 & 0xFFFFFFFF) >> 32 - FINEST


@dataclass(frozen=True, slots=True)
class HashedIds:
    """``raw`` holds the hashes of ``bits`` bits each, in one of the two forms."""

    bits: int = FINEST
    raw: bytes = b""

    def __len__(self) -> int:
        """Return the number of distinct hashes."""
        return len(self._hashes())

    def __contains__(self, item_id: object) -> bool:
        if not isinstance(item_id, str) or not self.raw:
            return False
        number = hash_of(item_id) >> FINEST - self.bits
        if self.bits < _LISTED:
            return bool(self.raw[number >> 3] >> (number & 7) & 1)
        width = self.bits // 8
        place = self.raw.find(wanted := number.to_bytes(width, "big"))
        # Bytes of two neighbours may look like a third hash.
        while place % width and place >= 0:
            place = self.raw.find(wanted, place + 1)
        return place >= 0

    def may_hold(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Return which of the hashes by ``hash_of``, shape (n,), are in the set, shape (n,)."""
        numbers = hashes >> FINEST - self.bits
        if self.bits >= _LISTED:
            # They lie in order: looking them up beats sorting all anew.
            if native.is_on():
                return native.may_hold(numbers, self.raw, self.bits // 8)
            held = self._hashes()
            at = np.searchsorted(held, numbers)
            at[at == len(held)] = 0
            return held[at] == numbers if len(held) else np.zeros(len(numbers), bool)
        bitmap = np.frombuffer(self.raw, np.uint8)
        found: NDArray[np.bool_] = (bitmap[numbers >> 3] >> (numbers & 7) & 1).astype(bool)
        return found

    def plus(self, item_ids: Iterable[str]) -> HashedIds:
        """Return the set with some ids more."""
        numbers = [hash_of(item_id) >> FINEST - self.bits for item_id in item_ids]
        if self.bits < _LISTED:
            bitmap = bytearray(self.raw.ljust((1 << self.bits) // 8, b"\0"))
            for number in numbers:
                bitmap[number >> 3] |= 1 << (number & 7)
            return HashedIds(self.bits, bytes(bitmap))
        # As bytes they lie in the order of the numbers; numpy would take longer for so few.
        width, raw = self.bits // 8, self.raw
        listed = {raw[at : at + width] for at in range(0, len(raw), width)}
        listed.update(number.to_bytes(width, "big") for number in numbers)
        return HashedIds(self.bits, b"".join(sorted(listed)))

    def union(self, other: HashedIds) -> HashedIds:
        """Return what is in either, with the bits of the coarser one."""
        bits = min(self.bits, other.bits)
        return _packed(bits, np.union1d(self._cut(bits), other._cut(bits)))

    def coarser(self) -> HashedIds | None:
        """Return the same set in fewer bytes, or None at the end."""
        for bits in _RUNGS:
            if bits < self.bits and _n_bytes(bits, len(cut := self._cut(bits))) < len(self.raw):
                return _packed(bits, np.unique(cut))
        return None

    def _cut(self, bits: int) -> Hashes:
        return np.unique(self._hashes() >> self.bits - bits)

    def _hashes(self) -> Hashes:
        if self.bits < _LISTED:
            set_bits = np.unpackbits(np.frombuffer(self.raw, np.uint8), bitorder="little")
            return np.flatnonzero(set_bits).astype(np.uint32)
        width = self.bits // 8
        wide = np.zeros((len(self.raw) // width, 4), np.uint8)
        wide[:, 4 - width :] = np.frombuffer(self.raw, np.uint8).reshape(-1, width)
        return wide.view(">u4").ravel().astype(np.uint32)


def _packed(bits: int, hashes: Hashes) -> HashedIds:
    if bits < _LISTED:
        bitmap = np.zeros(1 << bits, np.uint8)
        bitmap[hashes] = 1
        return HashedIds(bits, np.packbits(bitmap, bitorder="little").tobytes())
    wide = hashes.astype(">u4").view(np.uint8).reshape(-1, 4)
    return HashedIds(bits, wide[:, 4 - bits // 8 :].tobytes())


def _n_bytes(bits: int, n: int) -> int:
    return n * bits // 8 if bits >= _LISTED else (1 << bits) // 8
