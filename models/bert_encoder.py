"""TextEncoder on a BERT-family model: tokenised, sorted by length, encoded in micro-batches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.bert_network import DeviceLost, Dtype, OutOfMemory, choose_device, open_network
from models.encoder import Side
from models.weights import ModelFiles, UnsupportedModel, encoder_id

log = logging.getLogger(__name__)

# No token of a natural text is this long, so what is cut off would not have been read.
_CHARS_PER_TOKEN = 32


class Network(Protocol):
    """A forward pass on one device; raises OutOfMemory and DeviceLost."""

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def tokens_at_once(self) -> int: ...

    def __call__(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the pooled vectors of texts given as token ids, shape (len(texts), dim)."""


class BertEncoder:
    """A TextEncoder on transformers; safe to call from several threads.

    Callers take turns between micro-batches, and queries go first: a shopper's search does not
    wait for a catalogue. Without room on the GPU, batches shrink and then go to the CPU.
    ``n_truncated`` counts the texts that were longer than ``max_tokens`` since the start.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        batch_size: int = 64,
        max_tokens: int = 256,
        open_on: Callable[[str], Network] | None = None,
    ) -> None:
        """Load the model; raises BadDevice, ModelError, or EncoderUnavailable without room.

        ``batch_size`` is the most texts in one pass. ``open_on`` loads the network on a device
        by name, where it is not to be that of ``files``.
        """
        self.encoder_id = encoder_id(files)
        self.dim = files.dim
        self.max_tokens = min(max_tokens, files.max_tokens or max_tokens)
        self.n_truncated = 0
        self._files = files
        self._batch_size = batch_size
        self._tokenizer = _tokenizer(files, self.max_tokens)
        self._open_on = open_on or partial(open_network, files, dtype=dtype)
        self._network = self._open_on(choose_device(device))
        self._cpu: Network | None = None
        self._turns = _Turns()
        self._counting = threading.Lock()
        log.info(
            "encoder=%s device=%s dtype=%s dim=%d max_tokens=%d",
            self.encoder_id,
            self._network.device,
            self._network.dtype,
            self.dim,
            self.max_tokens,
        )

    @property
    def device(self) -> str:
        return self._network.device

    @property
    def dtype(self) -> str:
        return self._network.dtype

    def encode(self, texts: Sequence[str], side: Side = "passage") -> NDArray[np.float32]:
        """Return one unit vector per text, shape (len(texts), dim), in the order given.

        Raises EncoderUnavailable when a later try may succeed.
        """
        vectors = np.empty((len(texts), self.dim), np.float32)
        if not texts:
            return vectors
        tokens = self._tokenize(texts, side)
        for rows in self._micro_batches([len(ids) for ids in tokens]):
            with self._turns.take(side):
                vectors[rows] = self._forward([tokens[row] for row in rows])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _tokenize(self, texts: Sequence[str], side: Side) -> list[list[int]]:
        prefix = self._files.prefix(side)
        # A text of a million characters would be tokenised whole only to be cut.
        longest = self.max_tokens * _CHARS_PER_TOKEN
        cut = [prefix + text[:longest] for text in texts]
        encodings = self._tokenizer.encode_batch_fast(cut)
        n_truncated = sum(
            bool(encoding.overflowing) or len(text) > longest
            for encoding, text in zip(encodings, texts, strict=True)
        )
        with self._counting:
            self.n_truncated += n_truncated
        return [encoding.ids for encoding in encodings]

    def _micro_batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield rows in batches of like length: a batch costs as much as its longest text."""
        budget = self._network.tokens_at_once
        rows: list[int] = []
        for row in np.argsort(lengths, kind="stable").tolist():
            # In ascending order, this text is the longest of the batch that it would join.
            full = len(rows) >= self._batch_size or (len(rows) + 1) * lengths[row] > budget
            if rows and full:
                yield rows
                rows = []
            rows.append(row)
        yield rows

    def _forward(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        try:
            return self._network(tokens)
        except OutOfMemory:
            if len(tokens) > 1:
                half = len(tokens) // 2
                log.warning("device=%s out of memory: %d texts halved", self.device, len(tokens))
                return np.concatenate([self._forward(tokens[:half]), self._forward(tokens[half:])])
            if self.device == "cpu":
                raise
            log.warning("device=%s out of memory: one text goes to the CPU", self.device)
            return self._on_cpu()(tokens)
        except DeviceLost:
            if self.device == "cpu":
                raise
            log.exception("device=%s lost: going on with the CPU", self.device)
            self._network = self._on_cpu()
            return self._network(tokens)

    def _on_cpu(self) -> Network:
        if self._cpu is None:
            self._cpu = self._open_on("cpu")
        return self._cpu


class _Turns:
    """One caller at a time; who encodes queries goes before who encodes passages."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._queries_waiting = 0

    @contextmanager
    def take(self, side: Side) -> Iterator[None]:
        is_query = side == "query"
        with self._changed:
            self._queries_waiting += is_query
            self._changed.wait_for(
                lambda: not self._taken and (is_query or not self._queries_waiting)
            )
            self._queries_waiting -= is_query
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


def _tokenizer(files: ModelFiles, max_tokens: int) -> Any:
    """Return the fast tokenizer, set to cut at ``max_tokens``, the special ones included.

    Raises UnsupportedModel.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    except Exception as error:  # a broken file raises nearly anything, plain Exception included
        raise UnsupportedModel(f"tokenizer of {files.name!r} in {files.folder}: {error}") from error
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer
