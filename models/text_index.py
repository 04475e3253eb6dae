"""TextIndex: BM25 over the items' titles, brands and categories, kept up to date by tantivy."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tantivy
from numpy.typing import NDArray

from models.items import ItemFacts
from models.slab import Rows
from models.tokenise import head, words

#: Of tantivy; what a word's weight is multiplied with at most is one more.
_K1 = 1.2
_HEAP_BYTES = 15_000_000
#: Longer texts and queries are cut here: they would be slow, and say no more.
_MAX_CHARS, _MAX_QUERY_WORDS = 2000, 32
# No hash of 32 bits.
_NO_HEAD = 1 << 32
#: A row and, before it, the hash of a title's head in one number: reading one field takes half.
_ROW_BITS = 31
#: Answers remembered until the next change, and the items of one at most: some 10 MB.
_REMEMBERED, _REMEMBERED_ITEMS = 2000, 400


class Found(NamedTuple):
    """Items that share a word with a query, best first: rows (n,), and how well each matches.

    1 would be an item that holds every word more often than any does; so queries compare.
    ``is_named`` tells of which the query names the thing itself, (n,): of "laptop case" it is
    "case" that does; so it is where a title's head is not known. Others are told the same: it is
    not to be changed.
    """

    rows: Rows
    scores: NDArray[np.float32]
    is_named: NDArray[np.bool_]


class _View(NamedTuple):
    """The texts as of a refresh, and what was found in them by query and k."""

    searcher: tantivy.Searcher
    found: dict[tuple[str, int], Found]


class TextIndex:
    """The items' texts by row. What is put waits until ``refresh``; any thread may do either."""

    def __init__(self) -> None:
        self._schema = _schema()
        self._index = tantivy.Index(self._schema)
        self._writer = self._index.writer(_HEAP_BYTES, 1)
        self._view = _View(self._index.searcher(), {})
        self._latest: dict[int, ItemFacts] = {}
        self._waiting: dict[int, ItemFacts | None] = {}
        self._is_cleared = False
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def put(self, rows: Iterable[int], items: Iterable[ItemFacts]) -> None:
        """Add or replace what is said of items; those that are sold out are not found.

        A new price costs nothing: what is found by its words stays as it is.
        """
        with self._lock:
            for row, item in zip(rows, items, strict=True):
                if _searched(self._latest.get(row)) != _searched(item):
                    self._waiting[row] = item
                self._latest[row] = item

    def drop(self, rows: Iterable[int]) -> None:
        """Forget rows; unknown ones are ignored."""
        with self._lock:
            for row in rows:
                if self._latest.pop(row, None) is not None:
                    self._waiting[row] = None

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._latest.clear()
            self._waiting.clear()
            self._is_cleared = True

    def refresh(self, limit: int | None = None) -> int:
        """Make up to ``limit`` waiting items findable, all by default; return how many still wait.

        Cutting a text into words takes some 20 us, making a batch findable some milliseconds.
        """
        with self._refreshing:
            is_cleared, some = self._take(limit)
            if is_cleared:
                self._writer.delete_all_documents()
            for row, item in some:
                # By a text: a number given here is taken for another type, and nothing is deleted.
                self._writer.delete_documents_by_term("key", str(row))
                if item is not None and (text := _searched(item)):
                    self._writer.add_document(_document(row, text, item.title))
            if some or is_cleared:
                self._writer.commit()
                self._index.reload()
                self._view = _View(self._index.searcher(), {})
        return len(self._waiting)

    def _take(self, limit: int | None) -> tuple[bool, list[tuple[int, ItemFacts | None]]]:
        with self._lock:
            is_cleared, self._is_cleared = self._is_cleared, False
            rows = list(self._waiting)[:limit]
            return is_cleared, [(row, self._waiting.pop(row)) for row in rows]

    def search(self, query: str, k: int) -> Found:
        """Return the k best matches of a query, fewer where fewer match.

        Shoppers ask for the same things: an answer is remembered until anything changes.
        """
        view = self._view
        found = view.found.get((query, k))
        if found is None:
            found = self._search(view.searcher, query, k)
            if len(found.rows) <= _REMEMBERED_ITEMS:
                if len(view.found) >= _REMEMBERED:
                    view.found.clear()
                view.found[query, k] = found
        return found

    def _search(self, searcher: tantivy.Searcher, query: str, k: int) -> Found:
        known = self._weights(searcher, words(query[:_MAX_CHARS]))
        if not known or k < 1:
            return Found(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool))
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "words", word, "freq"))
            for word in known
        ]
        hits = searcher.search(tantivy.Query.boolean_query(terms), k, count=False).hits
        scores = np.array([score for score, _ in hits], np.float32)
        items = searcher.fast_field_values("item", [address for _, address in hits])
        packed = np.array(items, np.uint64)  # unsigned: with a head's hash they fill 64 bits
        named = np.array([_NO_HEAD, *map(_head_id, known)], np.uint64)
        is_named = (packed[:, None] >> np.uint64(_ROW_BITS) == named).any(axis=1)
        rows = (packed & np.uint64((1 << _ROW_BITS) - 1)).astype(np.int64)
        return Found(rows, scores / np.float32(sum(known.values())), is_named)

    @staticmethod
    def _weights(searcher: tantivy.Searcher, query: Sequence[str]) -> dict[str, float]:
        """Return the most that each word of a query adds to a score."""
        n_items = searcher.num_docs
        weights: dict[str, float] = {}
        for word in list(dict.fromkeys(query))[:_MAX_QUERY_WORDS]:
            n_with = searcher.doc_freq("words", word)
            # Deleted items may be counted still, so there may be more with it than there are.
            idf = math.log1p((max(n_items - n_with, 0) + 0.5) / (n_with + 0.5))
            weights[word] = (_K1 + 1) * idf
        return weights


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # The words come cut and stemmed.
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("key", tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("item", fast=True)
    return builder.build()


def _searched(item: ItemFacts | None) -> str:
    """Return what an item is found by; empty when it is gone or sold out."""
    if item is None or not item.in_stock:
        return ""
    return " ".join([item.title, item.brand or "", *item.categories])[:_MAX_CHARS]


def _head_id(word: str) -> int:
    # One word in 4,000 million is taken for another.
    return zlib.crc32(word.encode()) if word else _NO_HEAD


def _document(row: int, text: str, title: str) -> tantivy.Document:
    document = tantivy.Document()
    document.add_text("words", " ".join(words(text)))
    document.add_text("key", str(row))
    document.add_unsigned("item", _head_id(head(title[:_MAX_CHARS])) << _ROW_BITS | row)
    return document
