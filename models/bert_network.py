"""Token ids -> pooled vectors by torch, on one device; the encoder's one file that imports it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from models.encoder import EncoderUnavailable
from models.weights import ModelError, ModelFiles, Pooling, UnsupportedModel

log = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16"]
#: Texts as token ids -> pooled vectors, shape (len(texts), dim).
Forward = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]
#: Half precision is chosen only where its vectors lie this close to float32's.
MIN_COSINE = 0.9995
#: How many threads compute on a CPU: one a core, or what OMP_NUM_THREADS says.
CPU_THREADS = torch.get_num_threads()
#: More tokens per pass gain nothing on a CPU and delay others: on two AVX2 cores 256 tokens a core
#: reach 9/10 of the best rate, at 0.1 s a pass.
CPU_TOKENS_AT_ONCE = 256 * CPU_THREADS
# On a CPU so few tokens are computed by one thread: two took as long for one query on idle cores,
# and a quarter longer where something else wanted a core, since each waits for the other.
_ALONE_TOKENS = 32
# What is said of memory that torch's own allocator did not ask for: by libc, CUDA and cuBLAS.
_NO_ROOM = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_LOST = ("CUDA", "cuBLAS", "CUBLAS", "cuDNN", "CUDNN", "device lost")
# Leave out the layer on top that no sentence vector uses (and some weights lack).
_WITHOUT_POOLER = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")


class OutOfMemory(EncoderUnavailable):
    """The device has no room for this many texts at once."""


class DeviceLost(EncoderUnavailable):
    """The device failed; this process cannot use it again."""


class BadDevice(ValueError):
    """A device that this machine does not have; the text names it and what is allowed."""


class BertNetwork:
    """A BERT-family model's forward pass on one device. One caller at a time."""

    runtime = "torch"

    def __init__(
        self, model: Any, pooling: Pooling, device: str, dense: torch.nn.Module | None = None
    ) -> None:
        """``dense`` maps pooled vectors, in float32, to what this network gives."""
        self.device = device
        self.model = model
        self.dense = dense
        self._pooling = pooling
        self._pad_id = int(model.config.pad_token_id or 0)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def tokens_at_once(self) -> int:
        """How many tokens keep the device busy: more per pass gain nothing and delay others."""
        return CPU_TOKENS_AT_ONCE if self.device == "cpu" else 65_536

    def __call__(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the pooled vectors of texts given as token ids, shape (len(texts), dim).

        Raises OutOfMemory or DeviceLost.
        """
        with _device_errors(self.device), torch.inference_mode():
            if self.device == "cpu":
                n_tokens = len(texts) * max(map(len, texts))
                torch.set_num_threads(1 if n_tokens <= _ALONE_TOKENS else CPU_THREADS)
            vectors: NDArray[np.float32] = self.vectors(texts).cpu().numpy()
            return vectors

    def vectors(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return what a call returns as a tensor on the device, with gradients where they are on.

        Raises what torch does.
        """
        ids, mask = self._on_device(texts)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        found = pooled(hidden.float(), mask, self._pooling)  # (n, dim)
        return found if self.dense is None else self.dense(found)

    def _on_device(
        self, texts: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return ids (n, longest) and the mask of real tokens; no mask where none is padded."""
        ids, real = padded(texts, self._pad_id)
        mask = None if real.all() else torch.from_numpy(real).to(self.device)
        return torch.from_numpy(ids).to(self.device), mask


class PooledModel(torch.nn.Module):
    """Ids and mask, each (n, longest) -> pooled vectors (n, dim): what another runtime converts."""

    def __init__(self, model: Any, pooling: Pooling, dense: torch.nn.Module | None = None) -> None:
        super().__init__()
        self._model = model
        self._pooling = pooling
        self._dense = dense

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        found = pooled(hidden, mask, self._pooling)
        return found if self._dense is None else self._dense(found)


def padded(
    texts: Sequence[Sequence[int]], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids, and 1 where a token is real, each of shape (len(texts), longest)."""
    lengths = np.array([len(text) for text in texts])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad_id, np.int64)
    ids[real] = np.concatenate([np.asarray(text, np.int64) for text in texts])
    return ids, real.astype(np.int64)


def pooled(hidden: torch.Tensor, mask: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """Return one vector per text, (n, dim), from its tokens', (n, longest, dim)."""
    if pooling == "cls":
        return hidden[:, 0]
    if mask is None:
        return hidden.mean(dim=1)
    weights = mask.to(hidden.dtype).unsqueeze(-1)  # (n, longest, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def choose_device(wanted: str) -> str:
    """Return cpu, cuda or cuda:N; ``auto`` takes CUDA where there is one. Raises BadDevice."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if n_gpus else "cpu"
    allowed = ["cpu", *(["cuda"] if n_gpus else []), *(f"cuda:{n}" for n in range(n_gpus))]
    if wanted not in allowed:
        raise BadDevice(f"no device {wanted!r} here; allowed are auto, {', '.join(allowed)}")
    return wanted


def open_network(files: ModelFiles, device: str, dtype: Dtype = "auto") -> BertNetwork:
    """Load a model onto a device.

    ``auto`` takes bfloat16 where the device computes with it and it costs no accuracy.
    Raises OutOfMemory, DeviceLost or UnsupportedModel.
    """
    with _device_errors(device):
        model = load_model(files).to(device)
        dense = load_dense(files)
        dense = None if dense is None else dense.to(device)
        exact = BertNetwork(model, files.pooling, device, dense)
        if dtype == "float32" or (dtype == "auto" and not fast_bfloat16(device)):
            return exact
        half = BertNetwork(copy.deepcopy(model).to(torch.bfloat16), files.pooling, device, dense)
        if dtype == "bfloat16":
            return half
        cosine = lowest_cosine(exact, half, int(model.config.vocab_size))
        if cosine >= MIN_COSINE:
            return half
        log.warning("float32 is kept: cosine of bfloat16 is %.5f, below %.5f", cosine, MIN_COSINE)
        return exact


def load_model(files: ModelFiles) -> Any:
    """Return the model in float32 and evaluation mode; runs no code that comes with it.

    Raises UnsupportedModel.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging as transformers_logging

    quiet: Any = transformers_logging  # not typed
    quiet.disable_progress_bar()
    # Its load report lists the left-out pooler as a problem.
    quiet.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True)
        options = {"add_pooling_layer": False} if config.model_type in _WITHOUT_POOLER else {}
        model = AutoModel.from_pretrained(
            files.folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UnsupportedModel(f"model {files.name!r} in {files.folder}: {error}") from error
    return model.eval()


def load_dense(files: ModelFiles) -> torch.nn.Module | None:
    """Return the layer behind the pooling, in float32, None without; raises UnsupportedModel."""
    file = files.dense
    if file is None:
        return None
    linear = torch.nn.Linear(file.n_in, file.n_out, bias=file.has_bias)
    try:
        tensors = load_file(file.weights)
        linear.load_state_dict({key.removeprefix("linear."): t for key, t in tensors.items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UnsupportedModel(f"model {files.name!r}: {file.weights}: {error}") from error
    layers = [linear, torch.nn.Tanh()] if file.has_tanh else [linear]
    return torch.nn.Sequential(*layers).requires_grad_(False).eval()


def fast_bfloat16(device: str) -> bool:
    """Return whether a device computes bfloat16 itself."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions it is computed by way of float32, and slower.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def lowest_cosine(exact: Forward, other: Forward, vocab_size: int) -> float:
    """Return the lowest cosine between two networks' vectors of 16 texts of random tokens."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, vocab_size, n).tolist() for n in range(4, 68, 4)]
    a, b = exact(texts), other(texts)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Tell apart what torch reports as RuntimeErrors by what can be done about each."""
    try:
        yield
    except (EncoderUnavailable, ModelError):
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{device} is out of memory") from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_ROOM):
            raise OutOfMemory(f"{device} is out of memory") from error
        if isinstance(error, torch.AcceleratorError) or any(words in str(error) for words in _LOST):
            raise DeviceLost(f"{device} failed") from error
        raise
