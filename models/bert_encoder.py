"""TextEncoder on a BERT-family model: tokenised, sorted by length, encoded in micro-batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.bert_network import DeviceLost, Dtype, OutOfMemory, open_network
from models.encoder import EncoderUnavailable, Fallback, Side
from models.model_folder import check_files
from models.runtimes import Runtime, device_for, open_by_runtime
from models.weights import ModelFiles, UnsupportedModel, encoder_id

log = logging.getLogger(__name__)

# No token of a natural text is this long, so what is cut off would not have been read.
_CHARS_PER_TOKEN = 32
#: After a device had no room it is given less at once for so long: others may have left by then.
SMALLER_FOR_S = 60.0


class Network(Protocol):
    """A forward pass on one device; raises OutOfMemory and DeviceLost."""

    @property
    def device(self) -> str: ...

    @property
    def runtime(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def tokens_at_once(self) -> int: ...

    def __call__(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the pooled vectors of texts given as token ids, shape (len(texts), dim)."""


class BertEncoder:
    """A TextEncoder on transformers' models; safe to call from several threads.

    Callers take turns between micro-batches, and queries go first: a shopper's search does not
    wait for a catalogue. Without room on the GPU, batches shrink and then go to the CPU; once the
    GPU fails, everything does. ``fallbacks`` counts both, and ``n_truncated`` the texts that were
    longer than ``max_tokens``, since the start.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: str = "auto",
        runtime: Runtime = "auto",
        dtype: Dtype = "auto",
        batch_size: int = 64,
        max_tokens: int = 256,
        open_on: Callable[[str], Network] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the model; raises BadDevice, ModelError, or EncoderUnavailable without any device.

        A folder of our own making must be as its manifest says.

        ``runtime`` is what computes it; ``batch_size`` is the most texts in one pass. ``open_on``
        loads the network on a device by name, where it is not to be that of ``files``.
        """
        check_files(files.folder)
        self.encoder_id = encoder_id(files)
        self.dim = files.dim
        self.max_tokens = min(max_tokens, files.max_tokens or max_tokens)
        self.n_truncated = 0
        self._files = files
        self._tokenizer = open_tokenizer(files, self.max_tokens)
        self.fallbacks: Counter[Fallback] = Counter()
        self._room = _Room(batch_size, monotonic)
        # What takes over computes exactly: rounded twice, two vectors of a text would lie apart.
        self._open_spare = open_on or partial(open_network, files, dtype="float32")
        self._cpu: Network | None = None
        self._network = self._opened(
            device_for(device, runtime),
            open_on or partial(open_by_runtime, files, runtime=runtime, dtype=dtype),
        )
        self._turns = _Turns()
        self._counting = threading.Lock()
        log.info(
            "encoder=%s runtime=%s device=%s dtype=%s dim=%d max_tokens=%d",
            self.encoder_id,
            self._network.runtime,
            self._network.device,
            self._network.dtype,
            self.dim,
            self.max_tokens,
        )

    @property
    def device(self) -> str:
        return self._network.device

    @property
    def runtime(self) -> str:
        return self._network.runtime

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
        rows: list[int] = []
        for row in np.argsort(lengths, kind="stable").tolist():
            # In ascending order, this text is the longest of the batch that it would join. What a
            # device has room for, and which it is, may change from one batch to the next.
            n_tokens = (len(rows) + 1) * lengths[row]
            if rows and (len(rows) >= self._room.texts or n_tokens > self._network.tokens_at_once):
                yield rows
                rows = []
            rows.append(row)
        yield rows

    def _opened(self, device: str, open_on: Callable[[str], Network]) -> Network:
        """Return the network on a device, or on the CPU where the device does not take it."""
        try:
            return open_on(device)
        except EncoderUnavailable:
            if device == "cpu":
                raise
            log.exception("device=%s does not take the model: going on with the CPU", device)
        self.fallbacks["cpu"] += 1
        return self._on_cpu()

    def _forward(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        """Return the pooled vectors of one micro-batch, whatever becomes of the device."""
        try:
            return self._network(tokens)
        except OutOfMemory:
            if self.device == "cpu" and len(tokens) == 1:
                raise
            log.warning("device=%s out of memory: texts=%d", self.device, len(tokens))
            is_lost = False
        except DeviceLost:
            if self.device == "cpu":
                raise
            log.exception("device=%s lost: going on with the CPU", self.device)
            is_lost = True
        # Outside the handlers: their exceptions keep alive what the failed pass had allocated.
        if is_lost:
            return self._move_to_cpu(tokens)
        return self._in_halves(tokens) if len(tokens) > 1 else self._once_on_cpu(tokens)

    def _in_halves(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        half = len(tokens) // 2
        self._room.shrink_to(len(tokens) - half)
        self.fallbacks["smaller_batch"] += 1
        return np.concatenate([self._forward(tokens[:half]), self._forward(tokens[half:])])

    def _once_on_cpu(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        self.fallbacks["cpu_once"] += 1
        return self._on_cpu()(tokens)

    def _move_to_cpu(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        """Use the CPU from now on; what kept a GPU busy is many passes there."""
        self._network = self._on_cpu()
        self.fallbacks["cpu"] += 1
        vectors = np.empty((len(tokens), self.dim), np.float32)
        for rows in self._micro_batches([len(ids) for ids in tokens]):
            vectors[rows] = self._forward([tokens[row] for row in rows])
        return vectors

    def _on_cpu(self) -> Network:
        if self._cpu is None:
            self._cpu = self._open_spare("cpu")
        return self._cpu


class _Room:
    """How many texts a device is given at once."""

    def __init__(self, usual: int, monotonic: Callable[[], float]) -> None:
        self._usual = self._shrunk = usual
        self._monotonic = monotonic
        self._until_s = 0.0

    @property
    def texts(self) -> int:
        return self._shrunk if self._monotonic() < self._until_s else self._usual

    def shrink_to(self, texts: int) -> None:
        """Give no more than ``texts`` for a while."""
        self._shrunk = min(texts, self.texts)
        self._until_s = self._monotonic() + SMALLER_FOR_S


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


def open_tokenizer(files: ModelFiles, max_tokens: int) -> Any:
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
