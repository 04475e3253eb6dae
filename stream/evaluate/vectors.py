"""TextVectors: each text is encoded once a run, or once for all where there is a folder.

Several evaluations read the same titles, and encoding is most of what they cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.encoder import Side, TextEncoder
from models.weights import encoder_id, resolve
from stream.encoders import open_encoder
from stream.settings import Settings

Vectors = NDArray[np.float32]
#: Encoded and kept at once: what a run that is cut off loses at most.
_AT_ONCE = 2048
_DIGEST_BYTES = 16


class Encode(Protocol):
    """The settings' encoder's unit vectors of texts, shape (len(texts), dim)."""

    def __call__(
        self, texts: Sequence[str], settings: Settings, side: Side = "passage"
    ) -> Vectors: ...


def encoded(texts: Sequence[str], settings: Settings, side: Side = "passage") -> Vectors:
    """Return the settings' encoder's unit vectors of texts, shape (n, dim)."""
    return np.asarray(open_encoder(settings).encode(texts, side), np.float32)


class TextVectors:
    """An Encode that remembers; in ``folder`` it keeps vectors from run to run.

    Files are named by the encoder's id, which a digest of its weights is part of. ``on_done`` is
    told how many texts are encoded, of how many.
    """

    def __init__(
        self,
        folder: Path | None = None,
        on_done: Callable[[int, int], None] = lambda _n, _of: None,
        open_by: Callable[[Settings], TextEncoder] = open_encoder,
    ) -> None:
        self._folder = folder
        self._on_done = on_done
        self._open = open_by
        self._spaces: dict[tuple[str, Side, int], dict[bytes, Vectors]] = {}

    def __call__(self, texts: Sequence[str], settings: Settings, side: Side = "passage") -> Vectors:
        space = encoder_id(resolve(settings.encoder, sha256=settings.encoder_sha256))
        known = self._known(space, side, settings.encoder_max_tokens)
        digests = [hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES] for text in texts]
        by_digest = dict(zip(digests, texts, strict=True))
        missing = [digest for digest in by_digest if digest not in known]
        if missing:
            encoder = self._open(settings)
            for start in range(0, len(missing), _AT_ONCE):
                self._on_done(start, len(missing))
                some = missing[start : start + _AT_ONCE]
                vectors = encoder.encode([by_digest[digest] for digest in some], side)
                known.update(zip(some, vectors, strict=True))
                self._keep(self._stem(space, side, settings.encoder_max_tokens), some, vectors)
        return np.stack([known[digest] for digest in digests])

    def _known(self, space: str, side: Side, max_tokens: int) -> dict[bytes, Vectors]:
        if (space, side, max_tokens) not in self._spaces:
            known = self._spaces[space, side, max_tokens] = {}
            stem = self._stem(space, side, max_tokens)
            for path in sorted(self._folder.glob(f"{stem}.*.npz")) if self._folder else ():
                with np.load(path) as kept:
                    names = kept["digests"].tobytes()
                    ends = range(_DIGEST_BYTES, len(names) + 1, _DIGEST_BYTES)
                    digests = [names[end - _DIGEST_BYTES : end] for end in ends]
                    known.update(zip(digests, kept["vectors"], strict=True))
        return self._spaces[space, side, max_tokens]

    def _keep(self, stem: str, digests: Sequence[bytes], vectors: Vectors) -> None:
        if self._folder is None:
            return
        names = b"".join(digests)
        # Named by what is in it, and whole or not at all: several runs may share a folder.
        path = self._folder / f"{stem}.{hashlib.sha256(names).hexdigest()[:16]}.npz"
        writing = path.with_suffix(".writing.npz")
        np.savez(writing, digests=np.frombuffer(names, np.uint8), vectors=vectors)
        writing.rename(path)

    @staticmethod
    def _stem(space: str, side: Side, max_tokens: int) -> str:
        return f"{space.replace('/', '_')}-{side}-{max_tokens}"
