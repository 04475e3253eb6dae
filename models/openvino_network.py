"""Token ids -> pooled vectors on a CPU by OpenVINO; the one file that imports it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bert_network import (
    CPU_THREADS,
    CPU_TOKENS_AT_ONCE,
    MIN_COSINE,
    BertNetwork,
    Dtype,
    OutOfMemory,
    PooledModel,
    load_dense,
    load_model,
    lowest_cosine,
    padded,
)
from models.weights import ModelFiles, NotConverted

# OpenVINO reports its use to its maker over the network, at import and at every conversion, and
# asks nobody. Without the package that does it, it goes without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

log = logging.getLogger(__name__)

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
# One is padded, so that the mask is in what is traced; other shapes follow from none of these.
_EXAMPLE = [[0, 1, 2], [0, 1]]
_NO_ROOM = ("bad_alloc", "out of memory", "out_of_memory", "allocate", "can't alloc")


class OpenVinoNetwork:
    """A BERT-family model's forward pass on the CPU. One caller at a time."""

    runtime = "openvino"
    device = "cpu"
    tokens_at_once = CPU_TOKENS_AT_ONCE

    def __init__(self, compiled: Any, dtype: str, pad_id: int) -> None:
        """``compiled`` takes ids and mask of any shape (n, longest), and returns (n, dim)."""
        self.dtype = dtype
        self._request = compiled.create_infer_request()
        self._pad_id = pad_id
        # Of the last pass that came through.
        self._shape: tuple[int, ...] = ()

    def __call__(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the pooled vectors of texts given as token ids, shape (len(texts), dim).

        Raises OutOfMemory.
        """
        with _memory_errors():
            ids, real = padded(texts, self._pad_id)
            try:
                vectors = self._pass(ids, real)
            except (MemoryError, RuntimeError):
                self._change_shape()
                raise
            # The next pass writes over them.
            return vectors.copy()

    def _pass(self, ids: NDArray[np.int64], real: NDArray[np.int64]) -> NDArray[np.float32]:
        self._request.infer((ids, real))
        self._shape = ids.shape
        return np.asarray(self._request.get_output_tensor().data)

    def _change_shape(self) -> None:
        """Make a small pass of another shape than the last that came through.

        Where one has failed for want of memory, OpenVINO (2026.4) asks for as much again whenever
        the next has the shape of the one before it, and for ever; another shape ends that.
        """
        ones = np.ones((1, 2 if self._shape == (1, 1) else 1), np.int64)
        self._pass(ones * self._pad_id, ones)


def open_openvino(files: ModelFiles, dtype: Dtype = "auto") -> OpenVinoNetwork:
    """Load a model, convert it and compile it for this CPU (about a second of its time).

    ``auto`` takes bfloat16 where the CPU computes with it and it costs no accuracy.
    Raises OutOfMemory, UnsupportedModel, or NotConverted where its vectors would lie elsewhere.
    """
    with _memory_errors():
        model = load_model(files)
        pad_id, vocab_size = int(model.config.pad_token_id or 0), int(model.config.vocab_size)
        dense = load_dense(files)
        exact = BertNetwork(model, files.pooling, "cpu", dense)
        core = openvino.Core()
        graph = _converted(PooledModel(model, files.pooling, dense), files, pad_id)
        for name in _candidates(core, dtype):
            network = OpenVinoNetwork(_compiled(core, graph, name), name, pad_id)
            cosine = lowest_cosine(exact, network, vocab_size)
            # Who names bfloat16 has chosen it.
            if cosine >= MIN_COSINE or dtype == "bfloat16":
                return network
            log.warning("%s of OpenVINO has cosine %.5f, below %.5f", name, cosine, MIN_COSINE)
    raise NotConverted(f"model {files.name!r}: OpenVINO computes other vectors than torch")


def _candidates(core: Any, dtype: Dtype) -> list[str]:
    """Return the types to be tried, the quickest first."""
    if dtype != "auto":
        return [dtype]
    is_fast = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["bfloat16", "float32"] if is_fast else ["float32"]


def _converted(model: PooledModel, files: ModelFiles, pad_id: int) -> Any:
    """Return the model as a graph in which number and length of texts are open."""
    try:
        with warnings.catch_warnings():
            # Of tracing: that it is on its way out, and that lengths might be fixed by it, which
            # comparing the vectors would show.
            warnings.simplefilter("ignore")
            return openvino.convert_model(model, example_input=padded(_EXAMPLE, pad_id))
    except MemoryError:
        raise
    except Exception as error:  # whatever a layer that it does not know makes it raise
        raise NotConverted(f"model {files.name!r} for OpenVINO: {error}") from error


def _compiled(core: Any, graph: Any, dtype: str) -> Any:
    return core.compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": CPU_THREADS,
            # Others need the cores too: a thread that is bound to one waits for it.
            "ENABLE_CPU_PINNING": False,
        },
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Tell what OpenVINO says of memory, in an error like all of its errors, from the rest."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("cpu is out of memory") from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_ROOM):
            raise OutOfMemory("cpu is out of memory") from error
        raise
