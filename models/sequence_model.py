"""SequenceModel: a UserModel learnt by models/training/sequence.py, read from a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.item_index import Vectors, check_dim
from models.model_folder import read_folder, write_folder
from models.sequence_network import SequenceNetwork, Shape
from models.weights import ModelError, WrongEncoder

KIND = "sequence"
_ABOUT, _ITEMS, _WEIGHTS = "about.json", "items.json", "weights.safetensors"
#: Of what a file may say: beyond, memory would be asked for that nobody has.
_MOST = {"text_dim": 8192, "n_items": 50_000_000, "dim": 1024, "layers": 16, "heads": 16}
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class SequenceParts:
    """What was learnt: ``network`` knows the items by their places in ``item_ids``, and texts with
    the ``mean`` (text_dim,) of those of the encoder ``encoder_id`` taken off. ``weight`` is what a
    fit counts beside the hybrid score (models/user_model.py)."""

    network: SequenceNetwork
    item_ids: Sequence[str]
    mean: NDArray[np.float32]
    encoder_id: str
    weight: float


class SequenceModel:
    """The UserModel of some parts. Runs on the CPU: some 4 ms for 32 shoppers on one core."""

    def __init__(self, parts: SequenceParts, name: str) -> None:
        self.name = name
        self.dim = parts.network.shape.dim
        self.weight = parts.weight
        self.history_items = parts.network.shape.length
        self._network = parts.network.eval()
        self._mean = parts.mean
        self._number_of = {item_id: number for number, item_id in enumerate(parts.item_ids)}

    @torch.inference_mode()
    def items(self, item_ids: Sequence[str], vectors: Vectors) -> Vectors:
        """Return learnt unit vectors, (n, dim), of items with the encoder's unit vectors, (n, m).

        Raises ValueError for vectors of another dimension than the encoder's.
        """
        check_dim(len(self._mean), vectors)
        numbers = torch.tensor([self._number_of.get(i, -1) for i in item_ids], dtype=torch.long)
        found = self._network.items(torch.from_numpy(centred(vectors, self._mean)), numbers)
        return np.asarray(found.numpy(), np.float32)

    @torch.inference_mode()
    def shoppers(self, histories: Sequence[Vectors]) -> Vectors:
        """Return unit vectors, (b, dim), of histories of learnt vectors, each (n, dim), newest
        last, no longer than ``history_items``; zero for one of no items."""
        found = np.zeros((len(histories), self.dim), np.float32)
        told = [place for place, history in enumerate(histories) if len(history)]
        if not told:
            return found
        lengths = np.array([len(histories[place]) for place in told])
        padded = np.zeros((len(told), lengths.max(), self.dim), np.float32)
        for row, place in enumerate(told):
            padded[row, : lengths[row]] = histories[place]
        every = self._network(torch.from_numpy(padded))
        found[told] = every[torch.arange(len(told)), torch.from_numpy(lengths - 1)].numpy()
        return found


def centred(vectors: Vectors, mean: NDArray[np.float32]) -> Vectors:
    """Return unit vectors, (n, m), of vectors with a mean taken off, as the network wants texts."""
    rest = np.asarray(vectors, np.float32) - mean
    return np.asarray(rest / np.linalg.norm(rest, axis=1, keepdims=True).clip(min=1e-6), np.float32)


def save_sequence(folder: Path, parts: SequenceParts, facts: Mapping[str, Any]) -> str:
    """Write a model into a new folder; return its name. Raises ModelError and OSError."""
    about = {**asdict(parts.network.shape), "encoder": parts.encoder_id, "weight": parts.weight}
    tensors = {**parts.network.state_dict(), "mean": torch.from_numpy(parts.mean)}
    files = {
        _ABOUT: (json.dumps(about, indent=2, allow_nan=False) + "\n").encode(),
        _ITEMS: json.dumps(list(parts.item_ids), ensure_ascii=False).encode(),
        _WEIGHTS: save({name: tensor.contiguous() for name, tensor in tensors.items()}),
    }
    return write_folder(folder, KIND, {"encoder": parts.encoder_id, **facts}, files)


def load_sequence(folder: Path, encoder_id: str) -> SequenceModel:
    """Read a model that was learnt over the vectors of an encoder.

    Raises ModelError naming what is missing, damaged, of another kind or of another encoder.
    """
    found = read_folder(folder, KIND)
    missing = {_ABOUT, _ITEMS, _WEIGHTS} - set(found.files)
    if missing:
        raise ModelError(f"{folder}: lacks {' and '.join(sorted(missing))}")
    try:
        parts = _parts(found.files)
    except (
        KeyError,
        OverflowError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelError(f"{folder}: not a sequence model's: {error!r}") from None
    if parts.encoder_id != encoder_id:
        raise WrongEncoder(
            f"{folder}: learnt over vectors of the encoder {parts.encoder_id}, and the settings "
            f"say {encoder_id}: train it anew"
        )
    return SequenceModel(parts, found.name)


def _parts(files: Mapping[str, bytes]) -> SequenceParts:
    about, item_ids = json.loads(files[_ABOUT]), json.loads(files[_ITEMS])
    shape = Shape(**{field.name: about[field.name] for field in fields(Shape)})
    _check(shape)
    weight = float(about["weight"])
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"expected a weight from 0, got {weight}")
    if not isinstance(item_ids, list) or len(item_ids) != shape.n_items:
        raise ValueError(f"expected the ids of {shape.n_items} items")
    if not all(isinstance(item_id, str) for item_id in item_ids):
        raise ValueError("expected ids of items that are texts")
    tensors = load(files[_WEIGHTS])
    mean = np.asarray(tensors.pop("mean").numpy(), np.float32)
    check_dim(shape.text_dim, mean[None])
    # Without memory: what the file holds takes its place, if it has the shape.
    with torch.device("meta"):
        network = SequenceNetwork(shape)
    if not all(_is_finite(tensor) for tensor in [*tensors.values(), torch.from_numpy(mean)]):
        raise ValueError("expected finite weights")
    network.load_state_dict(tensors, assign=True)
    return SequenceParts(network, item_ids, mean, str(about["encoder"]), weight)


def _check(shape: Shape) -> None:
    for name, most in {**_MOST, "length": _LONGEST}.items():
        value = getattr(shape, name)
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"expected {name} from 1 to {most}, got {value!r}")
    if type(shape.by_text) is not bool:
        raise ValueError(f"expected by_text true or false, got {shape.by_text!r}")
    if shape.dim % shape.heads:
        raise ValueError(f"expected a dim that {shape.heads} heads can share, got {shape.dim}")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all())
