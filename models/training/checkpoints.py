"""Checkpoint: all that a training must know to go on, in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.weights import ModelError

FILE = "checkpoint.safetensors"
Tensors = dict[str, torch.Tensor]
_KINDS = ("parameters", "best", "memory")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training stands after ``step`` steps. ``before`` and ``best`` are figures on what is
    held out, of the model as it was and of the best weights, which are those of ``best_step``.
    ``optimizer`` is AdamW's state by parameter and name, ``memory`` the model's own."""

    step: int
    best_step: int
    before: Mapping[str, float]
    best: Mapping[str, float]
    seconds: float
    best_parameters: Tensors
    parameters: Tensors = field(default_factory=dict)
    optimizer: Mapping[str, Tensors] = field(default_factory=dict)
    memory: Tensors = field(default_factory=dict)


def save_checkpoint(folder: Path, reached: Checkpoint) -> None:
    """Write it whole or not at all, in place of what was there; raises OSError."""
    tensors = {
        **{f"parameters:{name}": t for name, t in reached.parameters.items()},
        **{f"best:{name}": t for name, t in reached.best_parameters.items()},
        **{f"memory:{name}": t for name, t in reached.memory.items()},
        **{
            f"optimizer:{key}:{name}": t
            for name, of_it in reached.optimizer.items()
            for key, t in of_it.items()
        },
    }
    numbers = {
        "step": reached.step,
        "best_step": reached.best_step,
        "before": dict(reached.before),
        "best": dict(reached.best),
        "seconds": reached.seconds,
    }
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{FILE}.new"
    # Copies: safetensors refuses tensors that share memory, as the best and the last may.
    copies = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    save_file(copies, new, {"reached": json.dumps(numbers)})
    os.replace(new, folder / FILE)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return what a folder's training has reached, None where it has not; raises ModelError."""
    path = folder / FILE
    if not path.is_file():
        return None
    found: dict[str, Tensors] = {kind: {} for kind in _KINDS}
    optimizer: dict[str, Tensors] = {}
    try:
        with safe_open(path, "pt") as file:
            numbers = json.loads(file.metadata()["reached"])
            for key in file.keys():  # noqa: SIM118 - it is no dict
                kind, _, name = key.partition(":")
                if kind == "optimizer":
                    part, _, name = name.partition(":")
                    optimizer.setdefault(name, {})[part] = file.get_tensor(key)
                else:
                    found[kind][name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: damaged, remove it to begin anew: {error}") from None
    return Checkpoint(
        step=numbers["step"],
        best_step=numbers["best_step"],
        before=numbers["before"],
        best=numbers["best"],
        seconds=numbers["seconds"],
        best_parameters=found["best"],
        parameters=found["parameters"],
        optimizer=optimizer,
        memory=found["memory"],
    )
