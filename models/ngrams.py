"""Texts -> hashed n-grams: of words, and of characters where words are not told apart by spaces.

Sentiment lies in short turns of phrase ("not worth", "不推荐"), punctuation included. Hashing needs
no vocabulary and no dictionary, and takes a new language as it comes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

#: Words and characters in one n-gram at most.
LONGEST = 3
#: Of a longer text only the beginning is read: so much takes 2 ms.
MAX_TOKENS = 2000

# Han and kana are taken one by one.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKENS = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+|[^\w\s]|_")


def ngrams(text: str, n_buckets: int) -> list[int]:
    """Return the buckets of a text's n-grams, each once and ascending; ``n_buckets`` is a power
    of two."""
    normal = unicodedata.normalize("NFKC", text).lower()
    tokens = [b" " + token.encode() for token in _TOKENS.findall(normal)[:MAX_TOKENS]]
    last, found = n_buckets - 1, set[int]()
    for first in range(len(tokens)):
        digest = 0
        for token in tokens[first : first + LONGEST]:
            # Of what is put together the checksum goes on from that of its beginning.
            digest = crc32(token, digest)
            found.add(digest & last)
    return sorted(found)


def ngram_rows(texts: Sequence[str], n_buckets: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the n-grams of all texts one after the other, and where each text's begin: the
    indices and the index pointers of a sparse matrix (len(texts), n_buckets)."""
    rows = [ngrams(text, n_buckets) for text in texts]
    pointers = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.array([bucket for row in rows for bucket in row], np.int64), pointers
